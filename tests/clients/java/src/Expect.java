import java.util.Arrays;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;

/** What a check demands. */
final class Expect {
    static final int WAIT_SECONDS_MAX = 15;
    private static final int PAUSE_MS = 20;

    private Expect() {}

    static final class Unexpected extends RuntimeException {
        private static final long serialVersionUID = 1;

        Unexpected(String what) {
            super(what);
        }
    }

    static void same(String what, Object got, Object expected) {
        if (!Objects.equals(got, expected)) {
            throw new Unexpected(what + ": " + got + " instead of " + expected);
        }
    }

    /** Names the lengths only: the values are large or no text. */
    static void sameBytes(String what, byte[] got, byte[] expected) {
        if (!Arrays.equals(got, expected)) {
            String length = got == null ? "nothing" : got.length + " bytes";
            throw new Unexpected(what + ": " + length + " that differ from the " + expected.length + " set");
        }
    }

    static void holds(String what, boolean is) {
        if (!is) {
            throw new Unexpected(what);
        }
    }

    /** The error that this ends with. */
    static Exception failure(String what, Callable<?> body) {
        Object got;
        try {
            got = body.call();
        } catch (Exception wrong) {
            return wrong;
        }
        throw new Unexpected(what + " was no error but " + got);
    }

    /** Tries until it succeeds, at most WAIT_SECONDS_MAX. */
    static <T> T eventually(Callable<T> body) throws Exception {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS_MAX);
        while (true) {
            try {
                return body.call();
            } catch (Exception wrong) {
                if (System.nanoTime() > until) {
                    throw wrong;
                }
            }
            Thread.sleep(PAUSE_MS);
        }
    }

    static <T> T next(BlockingQueue<T> queue) throws InterruptedException {
        T got = queue.poll(WAIT_SECONDS_MAX, TimeUnit.SECONDS);
        holds("nothing came in " + WAIT_SECONDS_MAX + " s", got != null);
        return got;
    }

    /** Whether CLIENT LIST shows a client of that name that is blocked. */
    static Void isWaiting(String clientList, String name) {
        boolean is = clientList.lines()
                .anyMatch(line -> line.contains(" name=" + name + " ") && line.contains(" flags=b "));
        holds("CLIENT LIST shows no blocked client", is);
        return null;
    }

    static void contains(String what, String text, String... parts) {
        for (String part : parts) {
            holds(what + " has no " + part + ": " + text, text.contains(part));
        }
    }
}
