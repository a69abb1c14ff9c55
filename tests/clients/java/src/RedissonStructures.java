import java.io.Serializable;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.redisson.api.BatchResult;
import org.redisson.api.RBatch;
import org.redisson.api.RBlockingQueue;
import org.redisson.api.RBucket;
import org.redisson.api.RFuture;
import org.redisson.api.RLock;
import org.redisson.api.RMap;
import org.redisson.api.RTopic;
import org.redisson.api.RedissonClient;

/**
 * The structures that Redisson is used for, with its own codec. Most calls are
 * scripts; a lock's waiters listen on a channel with the lock's name in braces, so
 * the pool needs {@code hash_tag = "{}"}.
 */
final class RedissonStructures {
    private static final int LOCKED_ADDITIONS = 25;
    private static final int LOCKING_THREADS = 4;
    private static final int QUEUED = 50;
    private static final int MAP_ENTRIES = 300;

    private final RedissonClient client;
    private final String prefix;

    RedissonStructures(RedissonClient client, String prefix) {
        this.client = client;
        this.prefix = prefix;
    }

    List<Main.Check> checks() {
        return List.of(
                new Main.Check("rbucket", this::rbucket),
                new Main.Check("rmap", this::rmap),
                new Main.Check("rlock", this::rlock),
                new Main.Check("rbatch", this::rbatch),
                new Main.Check("rblockingqueue", this::rblockingqueue),
                new Main.Check("rtopic", this::rtopic));
    }

    private String key(String name) {
        return prefix + ":" + name;
    }

    /** What an application stores. */
    public record Order(String id, long cents, List<String> items) implements Serializable {}

    private static Order order(int i) {
        return new Order("order-" + i, 100L * i, List.of("\u00e4pfel", "item " + i));
    }

    private void rbucket() {
        RBucket<Order> bucket = client.getBucket(key("order"));
        Expect.same("get", bucket.get(), null);
        bucket.set(order(1), Duration.ofSeconds(100));
        Expect.same("get", bucket.get(), order(1));
        Expect.holds("remainTimeToLive", bucket.remainTimeToLive() > 0);
        Expect.same("setIfAbsent", bucket.setIfAbsent(order(2)), false);
        Expect.same("compareAndSet of another value", bucket.compareAndSet(order(2), order(3)), false);
        Expect.same("compareAndSet", bucket.compareAndSet(order(1), order(3)), true);
        Expect.same("getAndSet", bucket.getAndSet(order(4)), order(3));
        Expect.same("getAndDelete", bucket.getAndDelete(), order(4));
        Expect.same("isExists", bucket.isExists(), false);
    }

    private void rmap() {
        RMap<String, Order> map = client.getMap(key("map"));
        Map<String, Order> expected = new HashMap<>();
        for (int i = 0; i < MAP_ENTRIES; i++) {
            expected.put("k" + i, order(i));
        }
        map.putAll(expected);
        Expect.same("size", map.size(), MAP_ENTRIES);
        Expect.same("put", map.put("k1", order(1001)), order(1));
        Expect.same("putIfAbsent", map.putIfAbsent("k1", order(1002)), order(1001));
        Expect.same("fastPut", map.fastPut("new", order(1003)), true);
        Expect.same("replace", map.replace("k1", order(1001), order(1004)), true);
        Expect.same("remove", map.remove("k2"), order(2));
        Expect.same("containsKey", map.containsKey("k2"), false);
        expected.put("k1", order(1004));
        expected.put("new", order(1003));
        expected.remove("k2");
        Map<String, Order> iterated = new HashMap<>();
        map.entrySet(20).forEach(entry -> iterated.put(entry.getKey(), entry.getValue()));
        Expect.holds("its iterator, by HSCAN, tells other entries", iterated.equals(expected));
        Expect.holds("readAllMap tells other entries", map.readAllMap().equals(expected));
        RMap<String, Integer> counters = client.getMap(key("counters"));
        counters.addAndGet("n", 40);
        Expect.same("addAndGet", counters.addAndGet("n", 2), 42);
    }

    /**
     * A waiter is woken by the channel: the lease is 30 s, twice as long as this
     * waits, so that one who only polls is too late.
     */
    private void rlock() throws Exception {
        RLock lock = client.getLock(key("lock"));
        lock.lock();
        Expect.holds("held by us", lock.isLocked() && lock.isHeldByCurrentThread());
        lock.lock();
        Expect.same("getHoldCount", lock.getHoldCount(), 2);
        lock.unlock();
        Expect.same("tryLock by another", other(() -> client.getLock(key("lock")).tryLock()).get(), false);
        CompletableFuture<Boolean> waiter = other(() -> {
            RLock same = client.getLock(key("lock"));
            boolean taken = same.tryLock(2 * Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS);
            if (taken) {
                same.unlock();
            }
            return taken;
        });
        Expect.holds("the waiter did not wait", !waiter.isDone());
        lock.unlock();
        Expect.same("tryLock that waits", waiter.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS), true);
        Expect.eventually(() -> {
            Expect.same("isLocked after all let go", lock.isLocked(), false);
            return null;
        });
        Exception foreign = Expect.failure("unlock of what is not ours", () -> {
            lock.unlock();
            return null;
        });
        Expect.holds("unlock of what is not ours: " + foreign, foreign instanceof IllegalMonitorStateException);
        exclude();
    }

    /** Threads that read, then write: without the lock, additions would be lost. */
    private void exclude() throws Exception {
        RBucket<Integer> sum = client.getBucket(key("sum"));
        sum.set(0);
        CountDownLatch together = new CountDownLatch(LOCKING_THREADS);
        CompletableFuture<?>[] threads = new CompletableFuture<?>[LOCKING_THREADS];
        for (int i = 0; i < LOCKING_THREADS; i++) {
            threads[i] = other(() -> {
                RLock lock = client.getLock(key("sum-lock"));
                together.countDown();
                together.await();
                for (int n = 0; n < LOCKED_ADDITIONS; n++) {
                    lock.lock();
                    try {
                        sum.set(sum.get() + 1);
                    } finally {
                        lock.unlock();
                    }
                }
                return true;
            });
        }
        CompletableFuture.allOf(threads).get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS);
        Expect.same("additions under the lock", sum.get(), LOCKING_THREADS * LOCKED_ADDITIONS);
    }

    /** On a thread of its own, for a lock belongs to a thread. */
    private static <T> CompletableFuture<T> other(java.util.concurrent.Callable<T> body) {
        CompletableFuture<T> ended = new CompletableFuture<>();
        Thread thread = new Thread(() -> {
            try {
                ended.complete(body.call());
            } catch (Throwable wrong) {
                ended.completeExceptionally(wrong);
            }
        });
        thread.setDaemon(true);
        thread.start();
        return ended;
    }

    /** Structures of several shards in one batch, scripts among them. */
    private void rbatch() {
        RBatch batch = client.createBatch();
        batch.getMap(key("b:map")).fastPutAsync("a", order(1));
        batch.getAtomicLong(key("b:count")).addAndGetAsync(5);
        RFuture<Boolean> replaced = batch.getBucket(key("b:bucket")).compareAndSetAsync(null, order(2));
        batch.getSet(key("b:set")).addAsync("member");
        batch.getMap(key("b:map")).getAsync("a");
        batch.getBucket(key("b:bucket")).getAsync();
        BatchResult<?> result = batch.execute();
        Expect.same("replies", result.getResponses(), List.of(true, 5L, true, true, order(1), order(2)));
        Expect.same("compareAndSet", replaced.toCompletableFuture().join(), true);
    }

    private void rblockingqueue() throws Exception {
        RBlockingQueue<Order> queue = client.getBlockingQueue(key("queue"));
        BlockingQueue<Order> taken = new LinkedBlockingQueue<>();
        CompletableFuture<Boolean> consumer = other(() -> {
            for (int i = 0; i < QUEUED; i++) {
                taken.add(client.<Order>getBlockingQueue(key("queue")).take());
            }
            return true;
        });
        for (int i = 0; i < QUEUED; i++) {
            queue.put(order(i));
        }
        for (int i = 0; i < QUEUED; i++) {
            Expect.same("take", Expect.next(taken), order(i));
        }
        consumer.get(Expect.WAIT_SECONDS_MAX, TimeUnit.SECONDS);
        Expect.same("poll of an empty queue", queue.poll(1, TimeUnit.SECONDS), null);
        queue.addAll(List.of(order(1), order(2), order(3)));
        Expect.same("pollLastAndOfferFirstTo",
                queue.pollLastAndOfferFirstTo(key("queue"), 1, TimeUnit.SECONDS), order(3));
        Expect.same("readAll", queue.readAll(), List.of(order(3), order(1), order(2)));
        Expect.same("drainTo", queue.drainTo(new java.util.ArrayList<>()), 3);
    }

    private void rtopic() throws Exception {
        RTopic topic = client.getTopic(key("topic"));
        BlockingQueue<Order> first = new LinkedBlockingQueue<>();
        BlockingQueue<Order> second = new LinkedBlockingQueue<>();
        int one = topic.addListener(Order.class, (channel, order) -> first.add(order));
        topic.addListener(Order.class, (channel, order) -> second.add(order));
        Expect.holds("publish reached nobody", topic.publish(order(1)) >= 1);
        Expect.same("message", Expect.next(first), order(1));
        Expect.same("message", Expect.next(second), order(1));
        topic.removeListener(one);
        topic.publish(order(2));
        Expect.same("message", Expect.next(second), order(2));
        Expect.same("messages of a listener that was removed", first.size(), 0);
        topic.removeAllListeners();
    }
}
