'use strict';
// The checks of node-redis: node_redis.js CLIENT [RESP]

const redis = require('redis');
const { version } = require('redis/package.json');
const checks = require('./checks.js');

const { equal, range } = checks;
const client = process.argv[2];
const options = process.argv[3] ? { RESP: Number(process.argv[3]) } : {};
const PREFIX = `node:${client}:${version}:`;
const KEYS = 200;
const key = (name) => PREFIX + name;

const open = [];

async function connected(more = {}) {
  const ours = redis.createClient({ socket: { host: checks.host, port: checks.port }, ...options, ...more });
  // Without a listener, a lost connection ends the process.
  ours.on('error', () => {});
  open.push(ours);
  await ours.connect();
  return ours;
}

const all = {
  async connect() {
    const ours = await connected({ name: 'checks' });
    equal(await ours.ping(), 'PONG');
    equal(await ours.clientGetName(), 'checks');
    equal(typeof await ours.clientId(), 'number');
  },

  async get_set() {
    const ours = await connected();
    const names = range(KEYS).map((number) => key(`${number}`));
    for (const name of names) equal(await ours.set(name, name), 'OK');
    await checks.spreadOverShards(`${PREFIX}*`);
    equal(await ours.mGet(names), names);
    equal(await ours.get(names[0]), names[0]);
    equal(await ours.del(names), KEYS);
    equal(await ours.get(names[0]), null);
  },

  async pipeline() {
    const ours = await connected();
    // What is asked in one tick is sent in one piece.
    const names = range(KEYS).map((number) => key(`p${number}`));
    const told = await Promise.all(names.flatMap((name) => [ours.set(name, 1), ours.incr(name), ours.get(name)]));
    equal(told, names.flatMap(() => ['OK', 2, '2']));
    const pipe = ours.multi();
    for (const name of names) pipe.incr(name);
    equal(await pipe.execAsPipeline(), names.map(() => 3));
  },

  async transaction() {
    const [ours, other] = [await connected(), await connected()];
    const tx = ours.multi().set(key('{tx}a'), 1).incr(key('{tx}a')).rPush(key('{tx}b'), 'x');
    equal(await tx.exec(), ['OK', 2, 1]);
    await ours.watch(key('{tx}a'));
    await other.set(key('{tx}a'), 100);
    await checks.rejects(ours.multi().set(key('{tx}a'), 0).exec(), /WatchError|watched/);
    equal(await ours.get(key('{tx}a')), '100');
  },

  async blocking_pop() {
    const [ours, other] = [await connected(), await connected()];
    const waiting = ours.blPop([key('{l}1'), key('{l}2')], 10);
    await checks.waitBlocked();
    await other.rPush(key('{l}2'), 'late');
    equal({ ...await waiting }, { key: key('{l}2'), element: 'late' });
  },

  async pubsub() {
    const [ours, listener] = [await connected(), await connected()];
    const names = range(5).map((number) => key(`channel${number}`));
    const heard = [];
    await listener.subscribe(names, (message, channel) => heard.push(`${channel} ${message}`));
    await listener.pSubscribe(`${PREFIX}pattern*`, (message, channel) => heard.push(`${channel} ${message}`));
    const channels = [...names, key('pattern1')];
    for (const name of channels) await ours.publish(name, 'hello');
    await checks.until(() => heard.length >= channels.length);
    equal(heard.sort(), channels.map((name) => `${name} hello`).sort());
    await listener.unsubscribe(names);
    await listener.pUnsubscribe();
    // In RESP2 it goes on giving buffers, as with a bare server.
    equal(String(await listener.ping()), 'PONG');
  },

  async scan() {
    const ours = await connected();
    const names = range(KEYS).map((number) => key(`scan:${number}`));
    await ours.mSet(names.map((name) => [name, '1']));
    const seen = [];
    for await (const found of ours.scanIterator({ MATCH: `${PREFIX}scan:*`, COUNT: 50 })) seen.push(...found);
    equal(seen.sort(), names.sort());
  },

  async script() {
    const source = "return redis.call('INCRBY', KEYS[1], 2 * ARGV[1])";
    const double = redis.defineScript({
      SCRIPT: source,
      NUMBER_OF_KEYS: 1,
      parseCommand(parser, name, number) { parser.pushKey(name); parser.push(String(number)); },
      transformReply: (reply) => reply,
    });
    const ours = await connected({ scripts: { double } });
    await ours.scriptFlush();
    equal(await ours.double(key('s'), 4), 8);
    equal(await ours.scriptLoad(source), double.SHA1);
    equal(await ours.scriptExists(double.SHA1), [1]);
    equal(await ours.eval(source, { keys: [key('s')], arguments: ['1'] }), 10);
  },

  async reconnect() {
    const [ours, listener] = [await connected(), await connected()];
    let heard = 0;
    await listener.subscribe(key('again'), () => { heard += 1; });
    await ours.set(key('kept'), 'kept');
    await checks.restart();
    equal(await checks.until(() => ours.get(key('kept'))), 'kept');
    await checks.until(async () => { await ours.publish(key('again'), 'back'); return heard > 0; });
  },

  async errors() {
    const ours = await connected();
    await checks.rejects(ours.sendCommand(['NOSUCH', 'a']), /unknown command/);
    await checks.rejects(ours.sendCommand(['BGSAVE']), /not supported/);
    equal(await ours.ping(), 'PONG');
  },
};

checks.report(client, version, all);
