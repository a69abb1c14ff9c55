import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import redis.clients.jedis.AbstractTransaction;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.JedisPubSub;
import redis.clients.jedis.Pipeline;
import redis.clients.jedis.Protocol;
import redis.clients.jedis.RedisClient;
import redis.clients.jedis.Response;
import redis.clients.jedis.exceptions.JedisConnectionException;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.exceptions.JedisNoScriptException;
import redis.clients.jedis.params.ScanParams;
import redis.clients.jedis.params.SetParams;
import redis.clients.jedis.resps.ScanResult;
import redis.clients.jedis.util.KeyValue;

/** Jedis' pooled client, as it comes (it agrees on RESP3 by HELLO), and once more with RESP2. */
final class JedisChecks implements Main.Client {
    private static final int LARGE_VALUE_BYTES = 1 << 20;
    private static final int PIPELINED = 200;
    private static final int SCANNED_KEYS = 500;
    private static final int MESSAGES = 50;

    private final String name;
    private final int protocol;
    private final Proxy proxy;
    private final String prefix;
    private final RedisClient client;

    static JedisChecks ofDefaults(Proxy proxy) {
        return new JedisChecks("Jedis", 3, proxy, DefaultJedisClientConfig.builder());
    }

    static JedisChecks resp2(Proxy proxy) {
        return new JedisChecks("Jedis/resp2", 2, proxy, DefaultJedisClientConfig.builder().resp2());
    }

    private JedisChecks(String name, int protocol, Proxy proxy, DefaultJedisClientConfig.Builder config) {
        this.name = name;
        this.protocol = protocol;
        this.proxy = proxy;
        prefix = name + ":" + Proxy.word();
        client = RedisClient.builder()
                .hostAndPort(new HostAndPort(proxy.host(), proxy.port()))
                .clientConfig(config.clientName(prefix).build())
                .build();
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public String version() {
        return Proxy.versionOf(RedisClient.class, "redis.clients/jedis");
    }

    @Override
    public void close() {
        client.close();
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

    private String clientCommand(String what) {
        byte[] argument = what.getBytes(StandardCharsets.UTF_8);
        return new String((byte[]) client.sendCommand(Protocol.Command.CLIENT, argument), StandardCharsets.UTF_8);
    }

    private void connect() {
        Expect.same("PING", client.ping(), "PONG");
        Expect.contains("CLIENT INFO", clientCommand("INFO") + " ",
                " name=" + prefix + " ", " resp=" + protocol + " ", " lib-name=jedis");
    }

    private void getSet() {
        byte[] large = new byte[LARGE_VALUE_BYTES];
        Arrays.fill(large, (byte) 'x');
        byte[][] values = {
            "value".getBytes(StandardCharsets.UTF_8), {}, {'a', '\r', '\n', 0, 'b', -1, '$', '5', '\r', '\n'}, large
        };
        for (int i = 0; i < values.length; i++) {
            Expect.same("SET", client.set(key("v" + i).getBytes(StandardCharsets.UTF_8), values[i]), "OK");
        }
        for (int i = 0; i < values.length; i++) {
            byte[] got = client.get(key("v" + i).getBytes(StandardCharsets.UTF_8));
            Expect.sameBytes("GET v" + i, got, values[i]);
        }
        Expect.same("GET of no key", client.get(key("missing")), null);
        client.set(key("short"), "lived", SetParams.setParams().ex(100));
        long left = client.ttl(key("short"));
        Expect.holds("TTL: " + left, left > 0 && left <= 100);
        Expect.same("MGET", client.mget(key("v0"), key("missing"), key("v1"), key("short")),
                Arrays.asList("value", null, "", "lived"));
        Expect.same("DEL", client.del(key("v0"), key("v1"), key("missing"), key("v3")), 3L);
        Expect.same("EXISTS", client.exists(key("v0"), key("v2"), key("short")), 2L);
    }

    private void pipeline() {
        List<Response<String>> read = new ArrayList<>();
        Response<Long> wrong;
        try (Pipeline pipeline = client.pipelined()) {
            for (int i = 0; i < PIPELINED; i++) {
                pipeline.set(key("p" + i), "" + i);
            }
            wrong = pipeline.lpush(key("p0"), "x");
            for (int i = 0; i < PIPELINED; i++) {
                read.add(pipeline.get(key("p" + i)));
            }
            pipeline.sync();
        }
        Exception error = Expect.failure("LPUSH to a string", wrong::get);
        Expect.holds("LPUSH to a string: " + error, error.getMessage().startsWith("WRONGTYPE"));
        for (int i = 0; i < PIPELINED; i++) {
            Expect.same("reply " + i + " of the pipeline", read.get(i).get(), "" + i);
        }
    }

    private void transaction() {
        String counter = key("{t}:counter");
        try (AbstractTransaction transaction = client.multi()) {
            Response<Long> first = transaction.incrBy(counter, 41);
            transaction.incr(counter);
            transaction.rpush(key("{t}:list"), "a", "b");
            Expect.same("EXEC", transaction.exec(), List.of(41L, 42L, 2L));
            Expect.same("INCRBY", first.get(), 41L);
        }
        try (AbstractTransaction transaction = client.transaction(false)) {
            Expect.same("WATCH", transaction.watch(counter), "OK");
            client.incr(counter);
            transaction.multi();
            transaction.set(counter, "lost");
            Expect.same("EXEC after the watched key changed", transaction.exec(), null);
        }
        try (AbstractTransaction transaction = client.transaction(false)) {
            transaction.watch(counter);
            transaction.multi();
            transaction.incrBy(counter, 43);
            Expect.same("EXEC", transaction.exec(), List.of(86L));
        }
        try (AbstractTransaction transaction = client.multi()) {
            transaction.set(counter, "lost");
            Expect.same("DISCARD", transaction.discard(), "OK");
        }
        Expect.same("counter", client.get(counter), "86");
    }

    private void blockingPop() throws Exception {
        String first = key("{q}:first");
        String second = key("{q}:second");
        CompletableFuture<KeyValue<String, String>> popped =
                CompletableFuture.supplyAsync(() -> client.blpop((double) Expect.WAIT_SECONDS_MAX, first, second));
        Expect.eventually(() -> Expect.isWaiting(clientCommand("LIST"), prefix));
        client.rpush(second, "one", "two");
        Expect.same("BLPOP", popped.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS), new KeyValue<>(second, "one"));
        Expect.same("BRPOP", client.brpop(1.0, first, second), new KeyValue<>(second, "two"));
        Expect.same("BLPOP of an empty list", client.blpop(0.5, first), null);
    }

    /** Puts what it hears into a queue; its own thread ends with its subscriptions. */
    private final class Listener extends JedisPubSub {
        final BlockingQueue<List<String>> heard = new LinkedBlockingQueue<>();
        CompletableFuture<Void> running;

        void start(String... channels) throws Exception {
            running = CompletableFuture.runAsync(() -> client.subscribe(this, channels));
            for (String channel : channels) {
                Expect.same("SUBSCRIBE", Expect.next(heard), List.of("subscribed", channel));
            }
        }

        @Override
        public void onSubscribe(String channel, int subscribed) {
            heard.add(List.of("subscribed", channel));
        }

        @Override
        public void onPSubscribe(String pattern, int subscribed) {
            heard.add(List.of("subscribed", pattern));
        }

        @Override
        public void onUnsubscribe(String channel, int subscribed) {
            heard.add(List.of("unsubscribed", channel));
        }

        @Override
        public void onMessage(String channel, String message) {
            heard.add(List.of(channel, message));
        }

        @Override
        public void onPMessage(String pattern, String channel, String message) {
            heard.add(List.of(pattern, channel, message));
        }
    }

    private void pubsub() throws Exception {
        String news = key("news");
        String other = key("other");
        Listener listener = new Listener();
        listener.start(news, other);
        listener.psubscribe(key("by-pattern:*"));
        Expect.same("PSUBSCRIBE", Expect.next(listener.heard), List.of("subscribed", key("by-pattern:*")));
        for (int i = 0; i < MESSAGES; i++) {
            Expect.holds("PUBLISH reached nobody", client.publish(news, "m" + i) >= 1);
        }
        for (int i = 0; i < MESSAGES; i++) {
            Expect.same("message", Expect.next(listener.heard), List.of(news, "m" + i));
        }
        client.publish(key("by-pattern:x"), "p\r\n");
        Expect.same("message", Expect.next(listener.heard),
                List.of(key("by-pattern:*"), key("by-pattern:x"), "p\r\n"));
        listener.unsubscribe(news);
        Expect.same("UNSUBSCRIBE", Expect.next(listener.heard), List.of("unsubscribed", news));
        client.publish(news, "nobody hears this");
        client.publish(other, "last");
        Expect.same("message", Expect.next(listener.heard), List.of(other, "last"));
        listener.unsubscribe();
        listener.punsubscribe();
        listener.running.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS);
    }

    private void scan() {
        TreeSet<String> expected = new TreeSet<>();
        try (Pipeline pipeline = client.pipelined()) {
            for (int i = 0; i < SCANNED_KEYS; i++) {
                // What differs stands before the end, so that the keys lie on all shards:
                // the last bytes hardly move an fnv1a_64.
                expected.add(key("s:" + i + ":of-many"));
                pipeline.set(key("s:" + i + ":of-many"), "x");
            }
            pipeline.sync();
        }
        ScanParams params = new ScanParams().match(key("s:*")).count(50);
        TreeSet<String> got = new TreeSet<>();
        String cursor = ScanParams.SCAN_POINTER_START;
        do {
            ScanResult<String> page = client.scan(cursor, params);
            got.addAll(page.getResult());
            cursor = page.getCursor();
        } while (!cursor.equals(ScanParams.SCAN_POINTER_START));
        Expect.same("keys that SCAN found", got.size(), expected.size());
        Expect.holds("SCAN found other keys", got.equals(expected));
        for (Proxy.Address address : proxy.shards()) {
            try (Jedis shard = new Jedis(address.host(), address.port())) {
                Expect.holds(address + " has none of them", !shard.keys(key("s:*")).isEmpty());
            }
        }
    }

    private void script() {
        // The prefix makes it a script that no shard knows yet.
        String script = "-- " + prefix + "\nredis.call('SET', KEYS[1], ARGV[1])\n"
                + "return {KEYS[2], tonumber(ARGV[2]) + 1, redis.call('GET', KEYS[1]), {'end'}}";
        List<String> keys = List.of(key("{l}:1"), key("{l}:2"));
        Expect.same("EVAL", client.eval(script, keys, List.of("v", "41")),
                List.of(key("{l}:2"), 42L, "v", List.of("end")));
        Exception unknown = Expect.failure("EVALSHA of no script",
                () -> client.evalsha("0".repeat(40), keys, List.of()));
        Expect.holds("EVALSHA of no script: " + unknown, unknown instanceof JedisNoScriptException);
        String loaded = client.scriptLoad("return ARGV[1] -- " + prefix);
        Expect.same("SCRIPT EXISTS", client.scriptExists(List.of(loaded, "0".repeat(40))), List.of(true, false));
        for (int i = 0; i < 20; i++) {
            String key = key("l:" + i + ":of-many");
            Expect.same("EVALSHA", client.evalsha(loaded, List.of(key), List.of("" + i)), "" + i);
        }
        Exception own = Expect.failure("a script's own error",
                () -> client.eval("return redis.error_reply('MINE it is')", keys, List.of()));
        Expect.holds("a script's own error: " + own,
                own instanceof JedisDataException && own.getMessage().startsWith("MINE it is"));
    }

    /** The pool throws away what broke; a subscriber is told and subscribes again, as Jedis wants it. */
    private void reconnect() throws Exception {
        client.set(key("kept"), "before");
        Listener broken = new Listener();
        broken.start(key("channel"));
        proxy.restart();
        Expect.eventually(() -> {
            Expect.same("GET", client.get(key("kept")), "before");
            return null;
        });
        // The pool may keep more of the old connections; each would fail once.
        client.getPool().clear();
        Expect.same("SET", client.set(key("kept"), "after"), "OK");
        Expect.same("GET", client.get(key("kept")), "after");
        Exception told = Expect.failure("the subscriber over a restart",
                () -> broken.running.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS));
        Expect.holds("the subscriber's end: " + told, told.getCause() instanceof JedisConnectionException);
        Listener fresh = new Listener();
        fresh.start(key("channel"));
        client.publish(key("channel"), "again");
        Expect.same("message", Expect.next(fresh.heard), List.of(key("channel"), "again"));
        fresh.unsubscribe();
        fresh.running.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS);
    }
}
