'use strict';
// The checks of BullMQ: a real queue, worker and listener to events. All its keys
// begin with `bull:`, so one prefix rule keeps them together.

const { FlowProducer, Queue, QueueEvents, Worker } = require('bullmq');
const { version } = require('bullmq/package.json');
const checks = require('../node/checks.js');

const { equal, range } = checks;
const JOBS = 20;
const JOB_LIMIT_MS = 20000;

// As its guide has it, for workers.
const connection = { host: checks.host, port: checks.port, maxRetriesPerRequest: null };
const queue = new Queue('checks', { connection });
const stored = new Queue('stored', { connection });
const events = new QueueEvents('checks', { connection });
const worker = new Worker('checks', async (job) => {
  if (job.name === 'fail') throw new Error('on purpose');
  return job.data.one + job.data.two;
}, { connection, autorun: false });
// Without listeners, a lost connection ends the process.
for (const each of [queue, stored, events, worker]) each.on('error', () => {});

const all = {
  async connect() {
    for (const each of [queue, events, worker]) await each.waitUntilReady();
    worker.run();
  },

  async get_set() {
    const job = await stored.add('kept', { text: 'a'.repeat(100) });
    const again = await stored.getJob(job.id);
    equal(again.data, { text: 'a'.repeat(100) });
    equal(await again.getState(), 'waiting');
    await again.remove();
    equal(await stored.getJob(job.id), undefined);
  },

  async pipeline() {
    const jobs = await queue.addBulk(range(JOBS).map((number) => ({ name: 'add', data: { one: number, two: 1 } })));
    const values = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, JOB_LIMIT_MS)));
    equal(values, range(JOBS).map((number) => number + 1));
  },

  async transaction() {
    // A flow is added by one MULTI; the parent waits for its children.
    const flows = new FlowProducer({ connection });
    const tree = await flows.add({
      name: 'add',
      queueName: 'checks',
      data: { one: 10, two: 20 },
      children: range(3).map((number) => ({ name: 'add', queueName: 'checks', data: { one: number, two: 0 } })),
    });
    equal(await tree.job.waitUntilFinished(events, JOB_LIMIT_MS), 30);
    equal(Object.values(await tree.job.getChildrenValues()).sort(), [0, 1, 2]);
    await flows.close();
  },

  async blocking_pop() {
    // An idle worker waits in BZPOPMIN; the other one waits for events.
    await checks.waitBlocked(2);
    const job = await queue.add('add', { one: 1, two: 2 });
    equal(await job.waitUntilFinished(events, JOB_LIMIT_MS), 3);
  },

  async script() {
    // Every step of a job is one; this one fails, and is tried again after a while.
    const job = await queue.add('fail', {}, { attempts: 2, backoff: 50 });
    await checks.rejects(job.waitUntilFinished(events, JOB_LIMIT_MS), /on purpose/);
    equal((await queue.getJob(job.id)).attemptsMade, 2);
    equal(await queue.getFailedCount(), 1);
  },

  async workers() {
    // It finds workers by CLIENT LIST, where they set a name.
    equal((await queue.getWorkers()).length, 1);
  },

  async prefix() {
    await checks.onlyOnShard('bull:*', 2);
  },

  async reconnect() {
    await checks.waitBlocked(2);
    await checks.restart();
    const job = await checks.until(() => queue.add('add', { one: 3, two: 4 }));
    equal(await job.waitUntilFinished(events, JOB_LIMIT_MS), 7);
  },
};

checks.report('BullMQ', version, all, {
  pubsub: 'its events are a stream, read by XREAD BLOCK',
  scan: 'it never scans',
});
