'use strict';
// The checks of ioredis: io_redis.js CLIENT

const { Redis } = require('ioredis');
const { version } = require('ioredis/package.json');
const checks = require('./checks.js');

const { equal, range } = checks;
const client = process.argv[2];
const PREFIX = `node:${client}:${version}:`;
const KEYS = 200;
const key = (name) => PREFIX + name;

function connected(more = {}) {
  const ours = new Redis({ host: checks.host, port: checks.port, ...more });
  // Without a listener, a lost connection is told on stderr.
  ours.on('error', () => {});
  return ours;
}

const all = {
  async connect() {
    const ours = connected({ connectionName: 'checks' });
    equal(await ours.ping(), 'PONG');
    equal(await ours.client('GETNAME'), 'checks');
  },

  async get_set() {
    const ours = connected();
    const names = range(KEYS).map((number) => key(`${number}`));
    for (const name of names) equal(await ours.set(name, name), 'OK');
    await checks.spreadOverShards(`${PREFIX}*`);
    equal(await ours.mget(names), names);
    equal(await ours.getBuffer(names[0]), Buffer.from(names[0]));
    equal(await ours.del(names), KEYS);
    equal(await ours.get(names[0]), null);
  },

  async pipeline() {
    const ours = connected();
    const names = range(KEYS).map((number) => key(`p${number}`));
    const pipe = ours.pipeline();
    for (const name of names) pipe.set(name, 1).incr(name).get(name);
    equal(await pipe.exec(), names.flatMap(() => [[null, 'OK'], [null, 2], [null, '2']]));
    const automatic = connected({ enableAutoPipelining: true });
    equal(await Promise.all(names.map((name) => automatic.incr(name))), names.map(() => 3));
  },

  async transaction() {
    const [ours, other] = [connected(), connected()];
    const tx = ours.multi().set(key('{tx}a'), 1).incr(key('{tx}a')).rpush(key('{tx}b'), 'x');
    equal(await tx.exec(), [[null, 'OK'], [null, 2], [null, 1]]);
    await ours.multi({ pipeline: false });
    equal(await ours.get(key('{tx}a')), 'QUEUED');
    equal(await ours.exec(), [[null, '2']]);
    await ours.watch(key('{tx}a'));
    await other.set(key('{tx}a'), 100);
    equal(await ours.multi().set(key('{tx}a'), 0).exec(), null);
    equal(await ours.get(key('{tx}a')), '100');
  },

  async blocking_pop() {
    const [ours, other] = [connected(), connected()];
    const waiting = ours.blpop(key('{l}1'), key('{l}2'), 10);
    await checks.waitBlocked();
    await other.rpush(key('{l}2'), 'late');
    equal(await waiting, [key('{l}2'), 'late']);
  },

  async pubsub() {
    const [ours, listener] = [connected(), connected()];
    const names = range(5).map((number) => key(`channel${number}`));
    const heard = [];
    listener.on('message', (channel, message) => heard.push(`${channel} ${message}`));
    listener.on('pmessage', (_, channel, message) => heard.push(`${channel} ${message}`));
    equal(await listener.subscribe(...names), 5);
    equal(await listener.psubscribe(`${PREFIX}pattern*`), 6);
    const channels = [...names, key('pattern1')];
    for (const name of channels) await ours.publish(name, 'hello');
    await checks.until(() => heard.length >= channels.length);
    equal(heard.sort(), channels.map((name) => `${name} hello`).sort());
    // Without names it never gets its answer, from a bare server neither.
    equal(await listener.unsubscribe(...names), 1);
    equal(await listener.punsubscribe(`${PREFIX}pattern*`), 0);
    equal(await listener.ping(), 'PONG');
  },

  async scan() {
    const ours = connected();
    const names = range(KEYS).map((number) => key(`scan:${number}`));
    await ours.mset(names.flatMap((name) => [name, '1']));
    const seen = [];
    for await (const found of ours.scanStream({ match: `${PREFIX}scan:*`, count: 50 })) seen.push(...found);
    equal(seen.sort(), names.sort());
  },

  async script() {
    const ours = connected();
    ours.defineCommand('double', { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], 2 * ARGV[1])" });
    await ours.script('FLUSH');
    equal(await ours.double(key('s'), 4), 8);
    equal(await ours.double(key('s'), 1), 10);
    await checks.rejects(ours.evalsha('f'.repeat(40), 1, key('s')), /NOSCRIPT/);
  },

  async reconnect() {
    const [ours, listener] = [connected(), connected()];
    let heard = 0;
    listener.on('message', () => { heard += 1; });
    await listener.subscribe(key('again'));
    await ours.set(key('kept'), 'kept');
    await checks.restart();
    equal(await checks.until(() => ours.get(key('kept'))), 'kept');
    await checks.until(async () => { await ours.publish(key('again'), 'back'); return heard > 0; });
  },

  async errors() {
    const ours = connected();
    await checks.rejects(ours.call('NOSUCH', 'a'), /unknown command/);
    await checks.rejects(ours.bgsave(), /not supported/);
    equal(await ours.ping(), 'PONG');
  },
};

checks.report(client, version, all);
