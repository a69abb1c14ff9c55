import io.lettuce.core.KeyValue;
import io.lettuce.core.LettuceFutures;
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisCommandExecutionException;
import io.lettuce.core.RedisFuture;
import io.lettuce.core.RedisNoScriptException;
import io.lettuce.core.RedisURI;
import io.lettuce.core.ScanArgs;
import io.lettuce.core.ScanIterator;
import io.lettuce.core.ScriptOutputType;
import io.lettuce.core.SetArgs;
import io.lettuce.core.TransactionResult;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.api.async.RedisAsyncCommands;
import io.lettuce.core.api.sync.RedisCommands;
import io.lettuce.core.codec.ByteArrayCodec;
import io.lettuce.core.pubsub.RedisPubSubAdapter;
import io.lettuce.core.pubsub.StatefulRedisPubSubConnection;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Lettuce as it comes: RESP3, one connection for all, which comes back by itself. */
final class LettuceChecks implements Main.Client {
    private static final int LARGE_VALUE_BYTES = 1 << 20;
    private static final int PIPELINED = 200;
    private static final int SCANNED_KEYS = 500;
    private static final int MESSAGES = 50;

    private final Proxy proxy;
    private final String prefix = "Lettuce:" + Proxy.word();
    private final RedisClient client;
    private final StatefulRedisConnection<String, String> connection;
    private final RedisCommands<String, String> commands;

    LettuceChecks(Proxy proxy) {
        this.proxy = proxy;
        client = RedisClient.create(RedisURI.builder()
                .withHost(proxy.host())
                .withPort(proxy.port())
                .withClientName(prefix)
                .withTimeout(Duration.ofSeconds(Expect.WAIT_SECONDS_MAX))
                .build());
        connection = client.connect();
        commands = connection.sync();
    }

    @Override
    public String name() {
        return "Lettuce";
    }

    @Override
    public String version() {
        return Proxy.versionOf(RedisClient.class, "io.lettuce/lettuce-core").replace(".RELEASE", "");
    }

    @Override
    public void close() {
        client.shutdown(Duration.ZERO, Duration.ofSeconds(2));
    }

    @Override
    public List<Main.Check> checks() {
        return List.of(
                new Main.Check("connect", this::connect),
                new Main.Check("get_set", this::getSet),
                new Main.Check("pipeline", this::pipeline),
                new Main.Check("transaction", this::transaction),
                new Main.Check("blocking_pop", this::blockingPop),
                new Main.Check("pubsub", this::pubsub),
                new Main.Check("scan", this::scan),
                new Main.Check("script", this::script),
                new Main.Check("reconnect", this::reconnect));
    }

    private String key(String name) {
        return prefix + ":" + name;
    }

    private void connect() {
        Expect.same("PING", commands.ping(), "PONG");
        Expect.contains("CLIENT INFO", commands.clientInfo(),
                " name=" + prefix + " ", " resp=3 ", " lib-name=Lettuce");
    }

    private void getSet() {
        byte[] large = new byte[LARGE_VALUE_BYTES];
        Arrays.fill(large, (byte) 'x');
        byte[][] values = {
            "value".getBytes(StandardCharsets.UTF_8), {}, {'a', '\r', '\n', 0, 'b', -1, '$', '5', '\r', '\n'}, large
        };
        try (StatefulRedisConnection<byte[], byte[]> binary = client.connect(ByteArrayCodec.INSTANCE)) {
            for (int i = 0; i < values.length; i++) {
                binary.sync().set(key("v" + i).getBytes(StandardCharsets.UTF_8), values[i]);
            }
            for (int i = 0; i < values.length; i++) {
                byte[] got = binary.sync().get(key("v" + i).getBytes(StandardCharsets.UTF_8));
                Expect.sameBytes("GET v" + i, got, values[i]);
            }
        }
        Expect.same("GET of no key", commands.get(key("missing")), null);
        commands.set(key("short"), "lived", SetArgs.Builder.ex(100));
        long left = commands.ttl(key("short"));
        Expect.holds("TTL: " + left, left > 0 && left <= 100);
        Expect.same("MGET", commands.mget(key("v0"), key("missing"), key("v1"), key("short")), List.of(
                KeyValue.just(key("v0"), "value"), KeyValue.empty(key("missing")),
                KeyValue.just(key("v1"), ""), KeyValue.just(key("short"), "lived")));
        Expect.same("DEL", commands.del(key("v0"), key("v1"), key("missing"), key("v3")), 3L);
        Expect.same("EXISTS", commands.exists(key("v0"), key("v2"), key("short")), 2L);
    }

    private void pipeline() throws Exception {
        List<RedisFuture<?>> all = new ArrayList<>();
        List<RedisFuture<String>> read = new ArrayList<>();
        RedisFuture<Long> wrong;
        try (StatefulRedisConnection<String, String> piped = client.connect()) {
            piped.setAutoFlushCommands(false);
            RedisAsyncCommands<String, String> queued = piped.async();
            for (int i = 0; i < PIPELINED; i++) {
                all.add(queued.set(key("p" + i), "" + i));
            }
            wrong = queued.lpush(key("p0"), "x");
            for (int i = 0; i < PIPELINED; i++) {
                read.add(queued.get(key("p" + i)));
            }
            all.addAll(read);
            piped.flushCommands();
            boolean done = LettuceFutures.awaitAll(
                    Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS, all.toArray(new RedisFuture<?>[0]));
            Expect.holds("the pipeline is not done", done);
        }
        for (int i = 0; i < PIPELINED; i++) {
            Expect.same("reply " + i + " of the pipeline", read.get(i).get(), "" + i);
        }
        Exception error = Expect.failure("LPUSH to a string", () -> wrong.get(1, TimeUnit.SECONDS));
        Expect.holds("LPUSH to a string: " + error, error.getCause().getMessage().startsWith("WRONGTYPE"));
    }

    private void transaction() {
        String counter = key("{t}:counter");
        commands.multi();
        commands.incrby(counter, 41);
        commands.incr(counter);
        commands.rpush(key("{t}:list"), "a", "b");
        TransactionResult done = commands.exec();
        Expect.same("EXEC", done.stream().toList(), List.of(41L, 42L, 2L));

        try (StatefulRedisConnection<String, String> other = client.connect()) {
            commands.watch(counter);
            other.sync().incr(counter);
            commands.multi();
            commands.set(counter, "lost");
            Expect.holds("EXEC went through after the watched key changed", commands.exec().wasDiscarded());
        }
        commands.watch(counter);
        commands.multi();
        commands.incrby(counter, 43);
        Expect.same("EXEC", commands.exec().stream().toList(), List.of(86L));

        commands.multi();
        commands.set(counter, "lost");
        Expect.same("DISCARD", commands.discard(), "OK");
        Expect.same("counter", commands.get(counter), "86");
    }

    private void blockingPop() throws Exception {
        String first = key("{q}:first");
        String second = key("{q}:second");
        try (StatefulRedisConnection<String, String> own = client.connect()) {
            RedisFuture<KeyValue<String, String>> popped =
                    own.async().blpop(Expect.WAIT_SECONDS_MAX, first, second);
            Expect.eventually(() -> Expect.isWaiting(commands.clientList(), prefix));
            commands.rpush(second, "one", "two");
            Expect.same("BLPOP", popped.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS),
                    KeyValue.just(second, "one"));
            Expect.same("BRPOP", own.sync().brpop(1, first, second), KeyValue.just(second, "two"));
            Expect.same("BLPOP of an empty list", own.sync().blpop(0.5, first), null);
        }
    }

    /** Puts what it hears into a queue. */
    private static final class Listener extends RedisPubSubAdapter<String, String> {
        final BlockingQueue<List<String>> heard = new LinkedBlockingQueue<>();

        @Override
        public void message(String channel, String message) {
            heard.add(List.of(channel, message));
        }

        @Override
        public void message(String pattern, String channel, String message) {
            heard.add(List.of(pattern, channel, message));
        }
    }

    private void pubsub() throws Exception {
        String news = key("news");
        String other = key("other");
        Listener listener = new Listener();
        try (StatefulRedisPubSubConnection<String, String> subscriber = client.connectPubSub()) {
            subscriber.addListener(listener);
            subscriber.sync().subscribe(news, other);
            subscriber.sync().psubscribe(key("by-pattern:*"));
            for (int i = 0; i < MESSAGES; i++) {
                Expect.holds("PUBLISH reached nobody", commands.publish(news, "m" + i) >= 1);
            }
            for (int i = 0; i < MESSAGES; i++) {
                Expect.same("message", Expect.next(listener.heard), List.of(news, "m" + i));
            }
            commands.publish(key("by-pattern:x"), "p\r\n");
            Expect.same("message", Expect.next(listener.heard),
                    List.of(key("by-pattern:*"), key("by-pattern:x"), "p\r\n"));
            subscriber.sync().unsubscribe(news);
            // With RESP3 a subscriber may ask other things, too.
            Expect.same("GET by a subscriber", subscriber.sync().get(key("missing")), null);
            commands.publish(news, "nobody hears this");
            commands.publish(other, "last");
            Expect.same("message", Expect.next(listener.heard), List.of(other, "last"));
        }
    }

    private void scan() {
        TreeSet<String> expected = new TreeSet<>();
        for (int i = 0; i < SCANNED_KEYS; i++) {
            // What differs stands before the end, so that the keys lie on all shards:
            // the last bytes hardly move an fnv1a_64.
            expected.add(key("s:" + i + ":of-many"));
            commands.set(key("s:" + i + ":of-many"), "x");
        }
        ScanArgs arguments = ScanArgs.Builder.matches(key("s:*")).limit(50);
        TreeSet<String> got = new TreeSet<>();
        ScanIterator.scan(commands, arguments).forEachRemaining(got::add);
        Expect.same("keys that SCAN found", got.size(), expected.size());
        Expect.holds("SCAN found other keys", got.equals(expected));
        for (Proxy.Address address : proxy.shards()) {
            try (StatefulRedisConnection<String, String> shard =
                    client.connect(RedisURI.create(address.host(), address.port()))) {
                Expect.holds(address + " has none of them", !shard.sync().keys(key("s:*")).isEmpty());
            }
        }
    }

    private void script() {
        // The prefix makes it a script that no shard knows yet.
        String script = "-- " + prefix + "\nredis.call('SET', KEYS[1], ARGV[1])\n"
                + "return {KEYS[2], tonumber(ARGV[2]) + 1, redis.call('GET', KEYS[1]), {'end'}}";
        String[] keys = {key("{l}:1"), key("{l}:2")};
        Exception unknown = Expect.failure("EVALSHA of no script",
                () -> commands.evalsha(commands.digest(script), ScriptOutputType.MULTI, keys, "v", "41"));
        Expect.holds("EVALSHA of no script: " + unknown, unknown instanceof RedisNoScriptException);
        List<Object> got = commands.eval(script, ScriptOutputType.MULTI, keys, "v", "41");
        Expect.same("EVAL", got, List.of(key("{l}:2"), 42L, "v", List.of("end")));
        got = commands.evalsha(commands.digest(script), ScriptOutputType.MULTI, keys, "w", "42");
        Expect.same("EVALSHA", got, List.of(key("{l}:2"), 43L, "w", List.of("end")));
        String loaded = commands.scriptLoad("return ARGV[1] -- " + prefix);
        Expect.same("SCRIPT EXISTS", commands.scriptExists(loaded, "0".repeat(40)), List.of(true, false));
        for (int i = 0; i < 20; i++) {
            String[] key = {key("l:" + i + ":of-many")};
            String told = commands.evalsha(loaded, ScriptOutputType.VALUE, key, "" + i);
            Expect.same("EVALSHA", told, "" + i);
        }
        Exception own = Expect.failure("a script's own error", () -> commands.eval(
                "return redis.error_reply('MINE it is')", ScriptOutputType.VALUE, keys));
        Expect.holds("a script's own error: " + own,
                own instanceof RedisCommandExecutionException && own.getMessage().startsWith("MINE it is"));
    }

    /** The same connection and the same subscription, over a restart. */
    private void reconnect() throws Exception {
        commands.set(key("kept"), "before");
        Listener listener = new Listener();
        try (StatefulRedisPubSubConnection<String, String> subscriber = client.connectPubSub()) {
            subscriber.addListener(listener);
            subscriber.sync().subscribe(key("channel"));
            proxy.restart();
            Expect.eventually(() -> {
                Expect.same("GET", commands.get(key("kept")), "before");
                return null;
            });
            Expect.same("SET", commands.set(key("kept"), "after"), "OK");
            Expect.same("GET", commands.get(key("kept")), "after");
            Expect.eventually(() -> {
                commands.publish(key("channel"), "again");
                List<String> heard = listener.heard.poll(100, TimeUnit.MILLISECONDS);
                Expect.same("message", heard, List.of(key("channel"), "again"));
                return null;
            });
        }
        Expect.contains("CLIENT INFO of the new connection", commands.clientInfo(), " name=" + prefix + " ");
    }
}
