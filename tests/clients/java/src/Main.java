import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Checks of Java clients against a keyferry that runs: one line for each check of
 * each client, {@code ok CLIENT VERSION CHECK} or {@code failed CLIENT VERSION
 * CHECK: why}. Ends with 0 only if nothing failed. Every wait has an end:
 * CHECK_SECONDS_MAX for a check, {@link Expect#WAIT_SECONDS_MAX} for what a check
 * waits for.
 */
public final class Main {
    static final int CHECK_SECONDS_MAX = 40;

    /** A client with settings of its own; it lives as long as its checks. */
    interface Client extends AutoCloseable {
        /** One word; a variant stands behind a slash. */
        String name();

        String version();

        List<Check> checks();

        @Override
        void close();
    }

    record Check(String name, Body body) {}

    interface Body {
        void run() throws Exception;
    }

    interface Opened {
        Client open() throws Exception;
    }

    public static void main(String[] arguments) throws InterruptedException {
        Proxy proxy = Proxy.ofEnvironment();
        ExecutorService runner = Executors.newCachedThreadPool(body -> {
            Thread thread = new Thread(body, "checks");
            thread.setDaemon(true);
            return thread;
        });
        int failed = 0;
        List<Opened> all = List.of(
                () -> JedisChecks.ofDefaults(proxy),
                () -> JedisChecks.resp2(proxy),
                () -> new LettuceChecks(proxy),
                () -> RedissonChecks.resp2(proxy),
                () -> RedissonChecks.resp3(proxy));
        for (Opened one : all) {
            try (Client client = one.open()) {
                for (Check check : client.checks()) {
                    failed += report(client, check, runner);
                }
            } catch (Exception wrong) {
                System.out.println("a client could not be made or closed: " + reason(wrong));
                failed += 1;
            }
        }
        System.out.flush();
        // What a failed check left waiting must not keep the process.
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
    }

    private static int report(Client client, Check check, ExecutorService runner) throws InterruptedException {
        String line = client.name() + " " + client.version() + " " + check.name();
        Future<?> running = runner.submit(() -> {
            check.body().run();
            return null;
        });
        try {
            running.get(CHECK_SECONDS_MAX, TimeUnit.SECONDS);
            System.out.println("ok " + line);
            return 0;
        } catch (ExecutionException wrong) {
            System.out.println("failed " + line + ": " + reason(wrong.getCause()));
            wrong.getCause().printStackTrace();
        } catch (TimeoutException late) {
            running.cancel(true);
            System.out.println("failed " + line + ": not done after " + CHECK_SECONDS_MAX + " s");
        }
        return 1;
    }

    private static String reason(Throwable wrong) {
        return wrong.toString().replaceAll("\\s+", " ");
    }
}
