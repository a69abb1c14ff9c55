import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.redisson.Redisson;
import org.redisson.api.BatchOptions;
import org.redisson.api.RBatch;
import org.redisson.api.RBlockingQueue;
import org.redisson.api.RBucket;
import org.redisson.api.RFuture;
import org.redisson.api.RPatternTopic;
import org.redisson.api.RScript;
import org.redisson.api.RTopic;
import org.redisson.api.RedissonClient;
import org.redisson.api.options.KeysScanOptions;
import org.redisson.api.redisnode.RedisNodes;
import org.redisson.client.codec.ByteArrayCodec;
import org.redisson.client.codec.StringCodec;
import org.redisson.config.Config;
import org.redisson.config.Protocol;
import redis.clients.jedis.Jedis;

/** Redisson as for one server: as it comes (RESP2), and once more with RESP3. */
final class RedissonChecks implements Main.Client {
    private static final int LARGE_VALUE_BYTES = 1 << 20;
    private static final int PIPELINED = 200;
    private static final int SCANNED_KEYS = 500;
    private static final int MESSAGES = 50;

    private final String name;
    private final Proxy proxy;
    private final String prefix;
    private final RedissonClient client;

    static RedissonChecks resp2(Proxy proxy) {
        return new RedissonChecks("Redisson", proxy, new Config());
    }

    static RedissonChecks resp3(Proxy proxy) {
        Config config = new Config();
        config.setProtocol(Protocol.RESP3);
        return new RedissonChecks("Redisson/resp3", proxy, config);
    }

    private RedissonChecks(String name, Proxy proxy, Config config) {
        this.name = name;
        this.proxy = proxy;
        prefix = name + ":" + Proxy.word();
        config.useSingleServer().setAddress("redis://" + proxy.host() + ":" + proxy.port()).setClientName(prefix);
        client = Redisson.create(config);
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public String version() {
        return Proxy.versionOf(Redisson.class, "org.redisson/redisson");
    }

    @Override
    public void close() {
        client.shutdown(0, 5, TimeUnit.SECONDS);
    }

    @Override
    public List<Main.Check> checks() {
        List<Main.Check> own = new RedissonStructures(client, prefix).checks();
        List<Main.Check> nine = List.of(
                new Main.Check("connect", this::connect),
                new Main.Check("get_set", this::getSet),
                new Main.Check("pipeline", this::pipeline),
                new Main.Check("transaction", this::transaction),
                new Main.Check("blocking_pop", this::blockingPop),
                new Main.Check("pubsub", this::pubsub),
                new Main.Check("scan", this::scan),
                new Main.Check("script", this::script));
        Main.Check last = new Main.Check("reconnect", this::reconnect);
        return Stream.of(nine, own, List.of(last)).flatMap(List::stream).toList();
    }

    private String key(String name) {
        return prefix + ":" + name;
    }

    private RBucket<String> text(String name) {
        return client.getBucket(key(name), StringCodec.INSTANCE);
    }

    /** CLIENT LIST, by another client: Redisson has no call for it. */
    private String clientList() {
        try (Jedis jedis = new Jedis(proxy.host(), proxy.port())) {
            return jedis.clientList();
        }
    }

    private void connect() {
        Expect.holds("PING", client.getRedisNodes(RedisNodes.SINGLE).pingAll());
        Expect.contains("CLIENT LIST", clientList(), " name=" + prefix + " ");
    }

    private void getSet() {
        byte[] large = "0123456789abcdef".repeat(LARGE_VALUE_BYTES / 16).getBytes();
        byte[][] values = {{'v'}, {}, {'a', '\r', '\n', 0, 'b', -1, '$', '5', '\r', '\n'}, large};
        for (int i = 0; i < values.length; i++) {
            client.getBucket(key("v" + i), ByteArrayCodec.INSTANCE).set(values[i]);
        }
        for (int i = 0; i < values.length; i++) {
            byte[] got = client.<byte[]>getBucket(key("v" + i), ByteArrayCodec.INSTANCE).get();
            Expect.sameBytes("GET v" + i, got, values[i]);
        }
        Expect.same("GET of no key", text("missing").get(), null);
        text("short").set("lived", Duration.ofSeconds(100));
        long left = text("short").remainTimeToLive();
        Expect.holds("PTTL: " + left, left > 0 && left <= 100_000);
        Map<String, Object> several = new HashMap<>();
        several.put(key("m1"), "one");
        several.put(key("m2"), "two");
        client.getBuckets(StringCodec.INSTANCE).set(several);
        several.put(key("short"), "lived");
        Expect.same("MGET", client.getBuckets(StringCodec.INSTANCE)
                .get(key("m1"), key("missing"), key("m2"), key("short")), several);
        Expect.same("DEL", client.getKeys().delete(key("m1"), key("m2"), key("missing"), key("v3")), 3L);
        Expect.same("EXISTS", client.getKeys().countExists(key("m1"), key("v2"), key("short")), 2L);
    }

    private void pipeline() {
        RBatch batch = client.createBatch();
        List<RFuture<Object>> read = new ArrayList<>();
        for (int i = 0; i < PIPELINED; i++) {
            batch.getBucket(key("p" + i), StringCodec.INSTANCE).setAsync("" + i);
        }
        for (int i = 0; i < PIPELINED; i++) {
            read.add(batch.getBucket(key("p" + i), StringCodec.INSTANCE).getAsync());
        }
        List<?> replies = batch.execute().getResponses();
        Expect.same("replies", replies.size(), 2 * PIPELINED);
        for (int i = 0; i < PIPELINED; i++) {
            Expect.same("reply " + i + " of the pipeline", replies.get(PIPELINED + i), "" + i);
            Expect.same("future " + i + " of the pipeline", read.get(i).toCompletableFuture().join(), "" + i);
        }
    }

    /** MULTI .. EXEC, as a batch that is atomic. */
    private void transaction() {
        RBatch batch = client.createBatch(BatchOptions.defaults()
                .executionMode(BatchOptions.ExecutionMode.IN_MEMORY_ATOMIC));
        batch.getAtomicLong(key("{t}:counter")).addAndGetAsync(41);
        batch.getAtomicLong(key("{t}:counter")).incrementAndGetAsync();
        batch.getList(key("{t}:list"), StringCodec.INSTANCE).addAsync("a");
        batch.getBucket(key("{t}:text"), StringCodec.INSTANCE).getAndSetAsync("new");
        List<Object> replies = new ArrayList<>(batch.execute().getResponses());
        List<Object> expected = new ArrayList<>(List.of(41L, 42L, true));
        expected.add(null);
        Expect.same("EXEC", replies, expected);
        Expect.same("counter", client.getAtomicLong(key("{t}:counter")).get(), 42L);
        Expect.same("text", text("{t}:text").get(), "new");
    }

    private void blockingPop() throws Exception {
        RBlockingQueue<String> first = client.getBlockingQueue(key("{q}:first"), StringCodec.INSTANCE);
        RBlockingQueue<String> second = client.getBlockingQueue(key("{q}:second"), StringCodec.INSTANCE);
        RFuture<String> popped =
                first.pollFromAnyAsync(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS, key("{q}:second"));
        Expect.eventually(() -> Expect.isWaiting(clientList(), prefix));
        second.add("one");
        Expect.same("BLPOP", popped.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS), "one");
        Expect.same("BLPOP of an empty list", first.poll(1, TimeUnit.SECONDS), null);
    }

    private void pubsub() throws Exception {
        BlockingQueue<List<String>> heard = new LinkedBlockingQueue<>();
        RTopic news = client.getTopic(key("news"), StringCodec.INSTANCE);
        RTopic other = client.getTopic(key("other"), StringCodec.INSTANCE);
        RPatternTopic pattern = client.getPatternTopic(key("by-pattern:*"), StringCodec.INSTANCE);
        for (RTopic topic : List.of(news, other)) {
            topic.addListener(String.class, (channel, text) -> heard.add(List.of(channel.toString(), text)));
        }
        pattern.addListener(String.class, (by, channel, text) ->
                heard.add(List.of(by.toString(), channel.toString(), text)));
        for (int i = 0; i < MESSAGES; i++) {
            Expect.holds("PUBLISH reached nobody", news.publish("m" + i) >= 1);
        }
        TreeSet<String> got = new TreeSet<>();
        TreeSet<String> expected = new TreeSet<>();
        for (int i = 0; i < MESSAGES; i++) {
            List<String> message = Expect.next(heard);
            Expect.same("channel", message.get(0), key("news"));
            // Redisson runs listeners on several threads, so their order is not the messages'.
            got.add(message.get(1));
            expected.add("m" + i);
        }
        Expect.same("messages", got, expected);
        client.getTopic(key("by-pattern:x"), StringCodec.INSTANCE).publish("p\r\n");
        Expect.same("message", Expect.next(heard), List.of(key("by-pattern:*"), key("by-pattern:x"), "p\r\n"));
        news.removeAllListeners();
        news.publish("nobody hears this");
        other.publish("last");
        Expect.same("message", Expect.next(heard), List.of(key("other"), "last"));
        other.removeAllListeners();
        pattern.removeAllListeners();
    }

    private void scan() {
        TreeSet<String> expected = new TreeSet<>();
        RBatch batch = client.createBatch();
        for (int i = 0; i < SCANNED_KEYS; i++) {
            // What differs stands before the end, so that the keys lie on all shards:
            // the last bytes hardly move an fnv1a_64.
            expected.add(key("s:" + i + ":of-many"));
            batch.getBucket(key("s:" + i + ":of-many"), StringCodec.INSTANCE).setAsync("x");
        }
        batch.execute();
        TreeSet<String> got = new TreeSet<>();
        client.getKeys().getKeys(KeysScanOptions.defaults().pattern(key("s:*")).chunkSize(50)).forEach(got::add);
        Expect.same("keys that SCAN found", got.size(), expected.size());
        Expect.holds("SCAN found other keys", got.equals(expected));
        for (Proxy.Address address : proxy.shards()) {
            try (Jedis shard = new Jedis(address.host(), address.port())) {
                Expect.holds(address + " has none of them", !shard.keys(key("s:*")).isEmpty());
            }
        }
    }

    private void script() {
        RScript scripts = client.getScript(StringCodec.INSTANCE);
        String script = "-- " + prefix + "\nredis.call('SET', KEYS[1], ARGV[1])\n"
                + "return {KEYS[2], ARGV[2], redis.call('GET', KEYS[1])}";
        List<Object> keys = List.of(key("{l}:1"), key("{l}:2"));
        List<Object> got = scripts.eval(
                RScript.Mode.READ_WRITE, script, RScript.ReturnType.LIST, keys, "v", "second");
        Expect.same("EVAL", got, List.of(key("{l}:2"), "second", "v"));
        Long number = scripts.eval(
                RScript.Mode.READ_WRITE, "return tonumber(ARGV[1]) + 1", RScript.ReturnType.LONG, keys, "41");
        Expect.same("EVAL", number, 42L);
        String loaded = scripts.scriptLoad("return ARGV[1] -- " + prefix);
        Expect.same("SCRIPT EXISTS", scripts.scriptExists(loaded, "0".repeat(40)), List.of(true, false));
        for (int i = 0; i < 20; i++) {
            List<Object> key = List.of(key("l:" + i + ":of-many"));
            // The key first: Redisson chooses by it, and so does a proxy.
            String told = scripts.evalSha((String) key.get(0), RScript.Mode.READ_WRITE, loaded,
                    RScript.ReturnType.VALUE, key, "" + i);
            Expect.same("EVALSHA", told, "" + i);
        }
        Exception own = Expect.failure("a script's own error", () -> scripts.eval(RScript.Mode.READ_WRITE,
                "return redis.error_reply('MINE it is')", RScript.ReturnType.VALUE, keys));
        Expect.holds("a script's own error: " + own, own.getMessage().startsWith("MINE it is"));
    }

    /** The same client and the same listener, over a restart, and a pop that waits meanwhile. */
    private void reconnect() throws Exception {
        text("kept").set("before");
        BlockingQueue<List<String>> heard = new LinkedBlockingQueue<>();
        RTopic topic = client.getTopic(key("channel"), StringCodec.INSTANCE);
        topic.addListener(String.class, (channel, text) -> heard.add(List.of(channel.toString(), text)));
        RBlockingQueue<String> queue = client.getBlockingQueue(key("queue"), StringCodec.INSTANCE);
        CompletableFuture<String> taken = queue.takeAsync().toCompletableFuture();
        Expect.eventually(() -> Expect.isWaiting(clientList(), prefix));
        proxy.restart();
        Expect.eventually(() -> {
            Expect.same("GET", text("kept").get(), "before");
            return null;
        });
        text("kept").set("after");
        Expect.same("GET", text("kept").get(), "after");
        Expect.eventually(() -> {
            topic.publish("again");
            Expect.same("message", heard.poll(100, TimeUnit.MILLISECONDS), List.of(key("channel"), "again"));
            return null;
        });
        Expect.eventually(() -> Expect.isWaiting(clientList(), prefix));
        queue.add("one");
        Expect.same("BLPOP over a restart", taken.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS), "one");
    }
}
