'use strict';
// For suites in Node.js: the lines of the contract (see ../suites.py) and what every
// check needs. A check is an async function that throws if something is not as it
// should be.

const net = require('node:net');
const { isDeepStrictEqual, inspect } = require('node:util');

const CHECK_LIMIT_MS = 30000;
// How long a client may take to find back after the proxy was restarted.
const RECONNECT_LIMIT_MS = 10000;
const LOOK_MS = 20;

const host = process.env.KEYFERRY_HOST;
const port = Number(process.env.KEYFERRY_PORT);
// All are on loopback.
const shards = process.env.KEYFERRY_SHARDS.split(',').map((shard) => Number(shard.split(':').pop()));

const NINE = [
  'connect', 'get_set', 'pipeline', 'transaction', 'blocking_pop', 'pubsub', 'scan', 'script', 'reconnect',
];

// Runs the nine, and what else there is, tells why some are not there, and ends the
// process.
async function report(client, version, checks, skipped = {}) {
  let failed = false;
  for (const [name, reason] of Object.entries(skipped)) console.log(`skipped ${client} ${version} ${name}: ${reason}`);
  const names = [...NINE, ...Object.keys(checks).filter((name) => !NINE.includes(name))];
  for (const name of names.filter((each) => each in checks)) {
    const limit = new Promise((_, reject) => {
      setTimeout(() => reject(new Error(`not done in ${CHECK_LIMIT_MS} ms`)), CHECK_LIMIT_MS).unref();
    });
    try {
      await Promise.race([checks[name](), limit]);
      console.log(`ok ${client} ${version} ${name}`);
    } catch (error) {
      failed = true;
      console.error(error);
      const why = String(error).split(/\s+/).join(' ').slice(0, 300);
      console.log(`failed ${client} ${version} ${name}: ${why}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

function equal(got, wanted) {
  if (!isDeepStrictEqual(got, wanted)) {
    throw new Error(`got ${inspect(got).slice(0, 200)}, not ${inspect(wanted).slice(0, 200)}`);
  }
}

async function rejects(promise, pattern) {
  const got = await promise.then((value) => ({ value }), (error) => ({ error }));
  if (!got.error) throw new Error(`got ${inspect(got.value)}, not an error`);
  if (!pattern.test(String(got.error))) throw new Error(`got ${got.error}, not ${pattern}`);
}

async function restart() {
  const answer = await fetch(`${process.env.KEYFERRY_CONTROL}/restart`, { method: 'POST' });
  equal(answer.status, 200);
}

// Calls until it neither throws nor gives false.
async function until(call, limitMs = RECONNECT_LIMIT_MS) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    try {
      const got = await call();
      if (got !== false) return got;
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    if (Date.now() > deadline) throw new Error(`not so in ${limitMs} ms`);
    await new Promise((resolve) => { setTimeout(resolve, LOOK_MS); });
  }
}

// What every shard says to an inline command, behind the proxy's back.
async function ofEveryShard(line) {
  return Promise.all(shards.map((shard) => new Promise((resolve, reject) => {
    let told = '';
    const socket = net.connect(shard, '127.0.0.1', () => socket.end(`${line}\r\nQUIT\r\n`));
    socket.on('data', (bytes) => { told += bytes; });
    socket.on('end', () => resolve(told));
    socket.on('error', reject);
  })));
}

// Until clients wait at a shard: what comes now finds them waiting.
async function waitBlocked(count = 1) {
  await until(async () => {
    const told = await ofEveryShard('INFO clients');
    return told.some((text) => Number(/blocked_clients:(\d+)/.exec(text)[1]) >= count);
  });
}

// That keys went to more than one shard: the client talked to the proxy.
async function spreadOverShards(pattern) {
  const has = await hasKeys(pattern);
  if (has.filter(Boolean).length < 2) throw new Error(`keys on the shards: ${has}`);
}

// That a prefix rule was followed.
async function onlyOnShard(pattern, wanted) {
  equal(await hasKeys(pattern), shards.map((_, shard) => shard === wanted));
}

async function hasKeys(pattern) {
  return (await ofEveryShard(`KEYS ${pattern}`)).map((text) => !text.startsWith('*0'));
}

function range(count) {
  return Array.from({ length: count }, (_, number) => number);
}

module.exports = {
  host, port, report, equal, rejects, restart, until, waitBlocked, spreadOverShards, onlyOnShard, range,
};
