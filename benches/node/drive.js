'use strict';
// The closed loop of the clients on Node.js, and the figures that it prints: the same as those of the Rust clients.

const fs = require('fs');
const { parseArgs } = require('util');

const PERCENTILES = [0, 1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9, 99.99, 100];
const LENGTHS = { 'add': 0, 'echo-1k': 1024, 'echo-64k': 65536 };

/** What the command line says; `--route` and `--form` are said to every client and change nothing here. */
function options() {
  const text = (value) => ({ type: 'string', default: value });
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      'at': text(''), 'work': text('add'), 'route': text('direct'), 'form': text('single'), 'in-flight': text('1'),
      'connections': text('1'), 'warm-up-seconds': text('0.2'), 'seconds': text('1'), 'watch': text(''),
    },
  });
  const [host, port] = values.at.split(':');
  if (LENGTHS[values.work] === undefined) throw new Error(`no such work: ${values.work}`);
  return {
    part: positionals[0],
    host,
    port: Number(port),
    work: values.work,
    text: 'x'.repeat(LENGTHS[values.work]),
    inFlight: Number(values['in-flight']),
    connections: Number(values.connections),
    warmUp: Number(values['warm-up-seconds']) * 1000,
    seconds: Number(values.seconds) * 1000,
    watch: values.watch.split(',').filter(Boolean).map(Number),
  };
}

/** Processor time of all threads of a process, in nanoseconds. */
function cpuTime(pid) {
  let sum = 0;
  for (const thread of fs.readdirSync(`/proc/${pid}/task`)) {
    try {
      sum += Number(fs.readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
    } catch { /* A thread that ended has no time any more. */ }
  }
  return sum;
}

/**
 * Keeps so many calls in flight on each connection. `call(connection, number)` calls once and gives a promise, or takes a
 * callback as its third argument: promises would be a burden on a library that has none.
 */
function drive({ connections, inFlight, warmUp, seconds, watch, work, text }, clients, call) {
  return new Promise((resolve, reject) => {
    let counting = false;
    let over = false;
    let running = connections * inFlight;
    const latencies = [];
    const servers = () => watch.reduce((sum, pid) => sum + cpuTime(pid), 0);
    let start, end;
    setTimeout(() => {
      start = { time: performance.now(), client: cpuTime(process.pid), server: servers() };
      counting = true;
      setTimeout(() => {
        counting = false;
        over = true;
        end = { time: performance.now(), client: cpuTime(process.pid), server: servers() };
      }, seconds);
    }, warmUp);
    const figures = () => {
      const sorted = Float64Array.from(latencies).sort();
      const count = sorted.length;
      const at = (percentile) => sorted[Math.round((count - 1) * percentile / 100)] * 1000;
      return {
        count,
        seconds: (end.time - start.time) / 1000,
        client_cpu_us: (end.client - start.client) / 1000 / count,
        server_cpu_us: (end.server - start.server) / 1000 / count,
        latencies_us: PERCENTILES.map(at),
        server_memory_kib: 0,
      };
    };
    for (const client of clients) {
      for (let place = 0; place < inFlight; place++) {
        let number = 0;
        const next = () => {
          number = (number + 1) & 0xffff;
          const expected = work === 'add' ? number + 1 : text;
          const before = performance.now();
          call(client, number, (error, result) => {
            if (error) return reject(error);
            if (result !== expected) return reject(new Error(`a wrong answer: ${String(result).slice(0, 40)}`));
            if (counting) latencies.push(performance.now() - before);
            if (!over) return next();
            running -= 1;
            if (running === 0) resolve(figures());
          });
        };
        next();
      }
    }
  });
}

/** Prints the figures and ends, whatever connections are still open. */
function report(figures) {
  figures.then(
    (figures) => { process.stdout.write(`${JSON.stringify(figures)}\n`, () => process.exit(0)); },
    (error) => { process.stderr.write(`error: ${error.stack}\n`, () => process.exit(1)); },
  );
}

/** Tells whoever started this process where it listens, and ends when that one lets go. */
function ready(port) {
  process.stdout.write(`ready 127.0.0.1:${port}\n`);
  process.stdin.on('end', () => process.exit(0)).resume();
}

module.exports = { drive, options, ready, report };
