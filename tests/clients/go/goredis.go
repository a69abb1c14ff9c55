// go-redis with its own defaults (HELLO 3, CLIENT SETINFO, maintenance
// notifications asked for), and once more with protocol 2.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	largeValueBytes  = 1 << 20
	scannedKeys      = 500
	pipelineCommands = 200
	messages         = 50
)

type goRedis struct {
	name     string
	protocol int
	under    proxy
	client   *redis.Client
	// prefix opens all keys and channels of this run.
	prefix string
}

func newGoRedis(under proxy, protocol int) *goRedis {
	name := "go-redis"
	options := &redis.Options{Addr: under.address}
	if protocol == 2 {
		name = "go-redis/resp2"
		options.Protocol = 2
	}
	prefix := name + ":" + word()
	options.ClientName = prefix
	return &goRedis{name, protocol, under, redis.NewClient(options), prefix}
}

func (g *goRedis) close() { g.client.Close() }

func (g *goRedis) checks() []check {
	return []check{
		{"connect", g.connect},
		{"get_set", g.getSet},
		{"pipeline", g.pipeline},
		{"transaction", g.transaction},
		{"blocking_pop", g.blockingPop},
		{"pubsub", g.pubsub},
		{"scan", g.scan},
		{"script", g.script},
		{"reconnect", g.reconnect},
	}
}

func (g *goRedis) key(name string) string { return g.prefix + ":" + name }

// spread is one of many keys that fall on all shards. What differs stands before
// the end: the last bytes hardly move an fnv1a_64, so keys that differ there only
// are neighbours on the ring.
func (g *goRedis) spread(name string, i int) string {
	return g.key(fmt.Sprintf("%s:%d:of-many", name, i))
}

func (g *goRedis) connect(ctx context.Context) error {
	pong, err := g.client.Ping(ctx).Result()
	if err != nil {
		return err
	}
	info, err := g.client.ClientInfo(ctx).Result()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(info.LibName, "go-redis") {
		return fmt.Errorf("lib-name=%s", info.LibName)
	}
	return errors.Join(
		same("PING", pong, "PONG"),
		same("protocol", info.Resp, g.protocol),
		same("name", info.Name, g.prefix),
	)
}

func (g *goRedis) getSet(ctx context.Context) error {
	values := map[string]string{
		"text":  "value",
		"empty": "",
		"bytes": "a\r\nb\x00c\xff$5\r\n",
		"large": strings.Repeat("0123456789abcdef", largeValueBytes/16),
	}
	for name, value := range values {
		if err := g.client.Set(ctx, g.key(name), value, time.Hour).Err(); err != nil {
			return err
		}
	}
	for name, value := range values {
		got, err := g.client.Get(ctx, g.key(name)).Result()
		if err != nil {
			return err
		}
		if got != value {
			return fmt.Errorf("GET %s: %d bytes that differ from the %d set", name, len(got), len(value))
		}
	}
	if _, err := g.client.Get(ctx, g.key("missing")).Result(); !errors.Is(err, redis.Nil) {
		return fmt.Errorf("GET of no key: %v", err)
	}
	left, err := g.client.TTL(ctx, g.key("text")).Result()
	if err != nil || left <= 0 || left > time.Hour {
		return fmt.Errorf("TTL: %v, %v", left, err)
	}
	many, err := g.client.MGet(ctx, g.key("text"), g.key("missing"), g.key("bytes"), g.key("empty")).Result()
	if err != nil {
		return err
	}
	expected := []any{values["text"], nil, values["bytes"], ""}
	if !slices.Equal(many, expected) {
		return fmt.Errorf("MGET: %q", many)
	}
	gone, err := g.client.Del(ctx, g.key("text"), g.key("missing"), g.key("bytes"), g.key("large")).Result()
	return errors.Join(err, same("DEL", gone, 3))
}

func (g *goRedis) pipeline(ctx context.Context) error {
	pipe := g.client.Pipeline()
	for i := range pipelineCommands {
		pipe.Set(ctx, g.key(fmt.Sprint("p", i)), i, 0)
	}
	wrong := pipe.LPush(ctx, g.key("p0"), "x")
	read := make([]*redis.StringCmd, pipelineCommands)
	for i := range read {
		read[i] = pipe.Get(ctx, g.key(fmt.Sprint("p", i)))
	}
	if _, err := pipe.Exec(ctx); err == nil || !strings.HasPrefix(err.Error(), "WRONGTYPE") {
		return fmt.Errorf("the pipeline's first error: %v", err)
	}
	if wrong.Err() == nil {
		return errors.New("LPUSH to a string was no error")
	}
	for i, command := range read {
		if got, err := command.Int(); err != nil || got != i {
			return fmt.Errorf("reply %d of the pipeline: %v, %v", i, got, err)
		}
	}
	return nil
}

func (g *goRedis) transaction(ctx context.Context) error {
	counter, list := g.key("{t}:counter"), g.key("{t}:list")
	var count, length *redis.IntCmd
	_, err := g.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		count = pipe.IncrBy(ctx, counter, 41)
		pipe.Incr(ctx, counter)
		length = pipe.RPush(ctx, list, "a", "b")
		return nil
	})
	if err != nil {
		return err
	}
	if err := errors.Join(same("INCRBY", count.Val(), 41), same("RPUSH", length.Val(), 2)); err != nil {
		return err
	}
	double := func(disturb bool) error {
		return g.client.Watch(ctx, func(tx *redis.Tx) error {
			seen, err := tx.Get(ctx, counter).Int()
			if err != nil {
				return err
			}
			if disturb {
				if err := g.client.Incr(ctx, counter).Err(); err != nil {
					return err
				}
			}
			_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.Set(ctx, counter, seen*2, 0)
				return nil
			})
			return err
		}, counter)
	}
	if err := double(true); !errors.Is(err, redis.TxFailedErr) {
		return fmt.Errorf("EXEC after the watched key changed: %v", err)
	}
	if err := double(false); err != nil {
		return err
	}
	got, err := g.client.Get(ctx, counter).Int()
	return errors.Join(err, same("counter", got, 86))
}

// isWaiting is nil once a client of ours is blocked, as CLIENT LIST shows it.
func (g *goRedis) isWaiting(ctx context.Context) error {
	list, err := g.client.ClientList(ctx).Result()
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		if strings.Contains(line, " name="+g.prefix+" ") && strings.Contains(line, " flags=b ") {
			return nil
		}
	}
	return errors.New("CLIENT LIST shows no blocked client")
}

func (g *goRedis) blockingPop(ctx context.Context) error {
	first, second := g.key("{q}:first"), g.key("{q}:second")
	popped := make(chan []string, 1)
	failed := make(chan error, 1)
	go func() {
		got, err := g.client.BLPop(ctx, waitSecondsMax*time.Second, first, second).Result()
		if err != nil {
			failed <- err
			return
		}
		popped <- got
	}()
	if err := eventually(func() error { return g.isWaiting(ctx) }); err != nil {
		return err
	}
	if err := g.client.RPush(ctx, second, "one", "two").Err(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case got := <-popped:
		if !slices.Equal(got, []string{second, "one"}) {
			return fmt.Errorf("BLPOP: %q", got)
		}
	}
	got, err := g.client.BRPop(ctx, time.Second, first, second).Result()
	if err != nil || !slices.Equal(got, []string{second, "two"}) {
		return fmt.Errorf("BRPOP: %q, %v", got, err)
	}
	if got, err := g.client.BLPop(ctx, time.Second, first).Result(); !errors.Is(err, redis.Nil) {
		return fmt.Errorf("BLPOP of an empty list: %q, %v", got, err)
	}
	return nil
}

// confirmed waits for the answers to SUBSCRIBE and the like.
func confirmed(ctx context.Context, subscriber *redis.PubSub, times int) error {
	for range times {
		answer, err := subscriber.ReceiveTimeout(ctx, waitSecondsMax*time.Second)
		if err != nil {
			return err
		}
		if _, ok := answer.(*redis.Subscription); !ok {
			return fmt.Errorf("%v instead of a subscription", answer)
		}
	}
	return nil
}

func expectMessage(ctx context.Context, subscriber *redis.PubSub, pattern, channel, payload string) error {
	answer, err := subscriber.ReceiveTimeout(ctx, waitSecondsMax*time.Second)
	if err != nil {
		return err
	}
	message, ok := answer.(*redis.Message)
	if !ok {
		return fmt.Errorf("%v instead of a message", answer)
	}
	return errors.Join(
		same("pattern", message.Pattern, pattern),
		same("channel", message.Channel, channel),
		same("payload", message.Payload, payload),
	)
}

func (g *goRedis) pubsub(ctx context.Context) error {
	news, other, pattern := g.key("news"), g.key("other"), g.key("by-pattern:*")
	subscriber := g.client.Subscribe(ctx, news, other)
	defer subscriber.Close()
	if err := subscriber.PSubscribe(ctx, pattern); err != nil {
		return err
	}
	if err := confirmed(ctx, subscriber, 3); err != nil {
		return err
	}
	for i := range messages {
		listeners, err := g.client.Publish(ctx, news, fmt.Sprint("m", i)).Result()
		if err != nil || listeners < 1 {
			return fmt.Errorf("PUBLISH: %d, %v", listeners, err)
		}
	}
	for i := range messages {
		if err := expectMessage(ctx, subscriber, "", news, fmt.Sprint("m", i)); err != nil {
			return err
		}
	}
	matching := g.key("by-pattern:x")
	if err := g.client.Publish(ctx, matching, "p\r\n\x00").Err(); err != nil {
		return err
	}
	if err := expectMessage(ctx, subscriber, pattern, matching, "p\r\n\x00"); err != nil {
		return err
	}
	if err := subscriber.Unsubscribe(ctx, news); err != nil {
		return err
	}
	if err := confirmed(ctx, subscriber, 1); err != nil {
		return err
	}
	for _, channel := range []string{news, other} {
		if err := g.client.Publish(ctx, channel, "last").Err(); err != nil {
			return err
		}
	}
	return expectMessage(ctx, subscriber, "", other, "last")
}

// scanned is the sorted keys that SCAN finds, each as often as it was found.
func scanned(ctx context.Context, client *redis.Client, pattern string) ([]string, error) {
	var keys []string
	each := client.Scan(ctx, 0, pattern, 50).Iterator()
	for each.Next(ctx) {
		keys = append(keys, each.Val())
	}
	slices.Sort(keys)
	return keys, each.Err()
}

func (g *goRedis) scan(ctx context.Context) error {
	var expected []string
	pipe := g.client.Pipeline()
	for i := range scannedKeys {
		key := g.spread("s", i)
		expected = append(expected, key)
		pipe.Set(ctx, key, "x", 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	slices.Sort(expected)
	got, err := scanned(ctx, g.client, g.key("s:*"))
	if err != nil {
		return err
	}
	// No key may be missing; one may come twice, as SCAN allows.
	if got = slices.Compact(got); !slices.Equal(got, expected) {
		return fmt.Errorf("SCAN found %d keys instead of %d", len(got), len(expected))
	}
	for _, address := range g.under.shards {
		shard := redis.NewClient(&redis.Options{Addr: address})
		there, err := scanned(ctx, shard, g.key("s:*"))
		shard.Close()
		if err != nil {
			return err
		}
		if len(there) == 0 {
			return fmt.Errorf("shard %s has none of the keys, so SCAN had no two shards to join", address)
		}
	}
	return nil
}

func (g *goRedis) script(ctx context.Context) error {
	// The word makes it a script that no shard knows: EVALSHA, NOSCRIPT, EVAL.
	script := redis.NewScript("-- " + g.prefix + `
		redis.call('SET', KEYS[1], ARGV[1])
		return {KEYS[2], tonumber(ARGV[2]) + 1, redis.call('GET', KEYS[1]), {false, 'end'}}`)
	one, two := g.key("{l}:1"), g.key("{l}:2")
	for range 2 {
		got, err := script.Run(ctx, g.client, []string{one, two}, "v", 41).Result()
		if err != nil {
			return err
		}
		expected := fmt.Sprint([]any{two, 42, "v", []any{nil, "end"}})
		if err := same("script", fmt.Sprint(got), expected); err != nil {
			return err
		}
	}
	loaded, err := g.client.ScriptLoad(ctx, "return ARGV[1] -- "+g.prefix).Result()
	if err != nil {
		return err
	}
	known, err := g.client.ScriptExists(ctx, loaded, strings.Repeat("0", 40)).Result()
	if err != nil || !slices.Equal(known, []bool{true, false}) {
		return fmt.Errorf("SCRIPT EXISTS: %v, %v", known, err)
	}
	// SCRIPT LOAD reached all shards: keys of any shard do.
	for i := range 20 {
		got, err := g.client.EvalSha(ctx, loaded, []string{g.spread("l", i)}, i).Int()
		if err != nil || got != i {
			return fmt.Errorf("EVALSHA: %d, %v", got, err)
		}
	}
	err = g.client.Eval(ctx, "return redis.error_reply('MINE it is')", []string{one}).Err()
	if err == nil || !strings.HasPrefix(err.Error(), "MINE it is") {
		return fmt.Errorf("a script's own error: %v", err)
	}
	return nil
}

// reconnect: the same client and the same subscription, over a restart.
func (g *goRedis) reconnect(ctx context.Context) error {
	key, channel := g.key("kept"), g.key("channel")
	if err := g.client.Set(ctx, key, "before", 0).Err(); err != nil {
		return err
	}
	subscriber := g.client.Subscribe(ctx, channel)
	defer subscriber.Close()
	if err := confirmed(ctx, subscriber, 1); err != nil {
		return err
	}
	heard := subscriber.Channel()
	if err := g.under.ask(ctx, "restart"); err != nil {
		return err
	}
	err := eventually(func() error {
		got, err := g.client.Get(ctx, key).Result()
		return errors.Join(err, same("GET", got, "before"))
	})
	if err != nil {
		return err
	}
	if err := g.client.Set(ctx, key, "after", 0).Err(); err != nil {
		return err
	}
	got, err := g.client.Get(ctx, key).Result()
	if err := errors.Join(err, same("GET", got, "after")); err != nil {
		return err
	}
	return eventually(func() error {
		if err := g.client.Publish(ctx, channel, "after").Err(); err != nil {
			return err
		}
		select {
		case message := <-heard:
			return same("payload", message.Payload, "after")
		case <-time.After(100 * time.Millisecond):
			return errors.New("the subscriber hears nothing")
		}
	})
}
