'use strict';
// The checks of valkey-glide, whose core is Rust: valkey_glide.js CLIENT

const glide = require('@valkey/valkey-glide');
const { version } = JSON.parse(
  require('node:fs').readFileSync(`${process.env.NODE_PATH}/@valkey/valkey-glide/package.json`, 'utf8'),
);
const checks = require('./checks.js');

const { equal, range } = checks;
const client = process.argv[2];
const PREFIX = `node:${client}:`;
const KEYS = 200;
// Its default is 250 ms, which is short for a busy machine.
const REQUEST_MS_MAX = 5000;
const EXACT = glide.GlideClientConfiguration.PubSubChannelModes.Exact;
const key = (name) => PREFIX + name;

async function connected(more = {}) {
  return glide.GlideClient.createClient({
    addresses: [{ host: checks.host, port: checks.port }],
    requestTimeout: REQUEST_MS_MAX,
    clientName: 'checks',
    ...more,
  });
}

async function listening(names, callback) {
  const listener = await connected({
    pubsubSubscriptions: { channelsAndPatterns: { [EXACT]: new Set(names) }, callback },
  });
  // It subscribes by and by.
  await checks.until(async () => {
    const { actualSubscriptions } = await listener.getSubscriptions();
    return (actualSubscriptions[EXACT] ?? new Set()).size === names.length;
  });
  return listener;
}

const all = {
  async connect() {
    for (const protocol of [glide.ProtocolVersion.RESP3, glide.ProtocolVersion.RESP2]) {
      const ours = await connected({ protocol });
      equal(await ours.ping(), 'PONG');
      equal(await ours.clientGetName(), 'checks');
      ours.close();
    }
  },

  async get_set() {
    const ours = await connected();
    const names = range(KEYS).map((number) => key(`${number}`));
    equal(await Promise.all(names.map((name) => ours.set(name, name))), names.map(() => 'OK'));
    await checks.spreadOverShards(`${PREFIX}*`);
    equal(await ours.mget(names), names);
    equal(await ours.del(names), KEYS);
    equal(await ours.get(names[0]), null);
  },

  async pipeline() {
    const ours = await connected();
    const batch = new glide.Batch(false);
    for (const number of range(KEYS)) batch.set(key(`p${number}`), '1').incr(key(`p${number}`));
    equal(await ours.exec(batch, true), range(KEYS).flatMap(() => ['OK', 2]));
  },

  async transaction() {
    const [ours, other] = [await connected(), await connected()];
    const batch = new glide.Batch(true).set(key('{tx}a'), '1').incr(key('{tx}a')).rpush(key('{tx}b'), ['x']);
    equal(await ours.exec(batch, true), ['OK', 2, 1]);
    await ours.watch([key('{tx}a')]);
    await other.set(key('{tx}a'), '100');
    equal(await ours.exec(new glide.Batch(true).set(key('{tx}a'), '0'), true), null);
    equal(await ours.get(key('{tx}a')), '100');
  },

  async blocking_pop() {
    const [ours, other] = [await connected(), await connected()];
    const waiting = ours.blpop([key('{l}1'), key('{l}2')], 10);
    await checks.waitBlocked();
    await other.rpush(key('{l}2'), ['late']);
    equal(await waiting, [key('{l}2'), 'late']);
  },

  async pubsub() {
    const ours = await connected();
    const names = range(5).map((number) => key(`channel${number}`));
    const heard = [];
    await listening(names, (message) => heard.push(`${message.channel} ${message.message}`));
    for (const name of names) await ours.publish('hello', name);
    await checks.until(() => heard.length >= names.length);
    equal(heard.sort(), names.map((name) => `${name} hello`).sort());
  },

  async scan() {
    const ours = await connected();
    const names = range(KEYS).map((number) => key(`scan:${number}`));
    await ours.mset(Object.fromEntries(names.map((name) => [name, '1'])));
    const seen = [];
    let cursor = '0';
    do {
      const [next, found] = await ours.scan(cursor, { match: `${PREFIX}scan:*`, count: 50 });
      seen.push(...found);
      cursor = next;
    } while (cursor !== '0');
    equal(seen.sort(), names.sort());
  },

  async script() {
    const ours = await connected();
    const double = new glide.Script("return redis.call('INCRBY', KEYS[1], 2 * ARGV[1])");
    await ours.scriptFlush();
    equal(await ours.invokeScript(double, { keys: [key('s')], args: ['4'] }), 8);
    equal(await ours.scriptExists([double.getHash()]), [true]);
  },

  async reconnect() {
    const ours = await connected();
    let heard = 0;
    await listening([key('again')], () => { heard += 1; });
    await ours.set(key('kept'), 'kept');
    await checks.restart();
    equal(await checks.until(() => ours.get(key('kept'))), 'kept');
    await checks.until(async () => { await ours.publish('back', key('again')); return heard > 0; });
  },
};

checks.report(client, version, all);
