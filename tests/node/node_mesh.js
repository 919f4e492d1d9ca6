// Branches and masters that speak node-mesh, with the codec of the original. Arguments: `branch PORT AUTH`, `pair PORT`, or `master`.
// Prints one line of JSON for each thing that it found.
'use strict';
const assert = require('assert');
const net = require('net');
const { pack, unpack } = require('msgpackr-node');

const say = (what, value) => process.stdout.write(JSON.stringify([what, value]) + '\n');

// One end of a connection: messages in batches, requests by their ids.
class Peer {
  constructor(socket, name) {
    Object.assign(this, { socket, name, waiting: new Map(), drawn: 0, rest: Buffer.alloc(0), batch: [] });
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('data', (data) => this.read(data));
  }

  read(data) {
    this.rest = this.rest.length ? Buffer.concat([this.rest, data]) : data;
    for (;;) {
      const kind = this.rest[0];
      const head = { 0xc4: 2, 0xc5: 3, 0xc6: 5 }[kind];
      if (this.rest.length < (head || 5)) return;
      const len = kind === 0xc4 ? this.rest[1] : kind === 0xc5 ? this.rest.readUInt16BE(1) : this.rest.readUInt32BE(1);
      if (this.rest.length < head + len) return;
      const messages = unpack(this.rest.subarray(head, head + len));
      this.rest = this.rest.subarray(head + len);
      messages.forEach((message) => this.hear(message));
    }
  }

  hear(message) {
    const { id, type, source, content, data } = message;
    if (type === 'callback') {
      const done = this.waiting.get(id);
      this.waiting.delete(id);
      if (done) done(data);
    } else {
      this.on(type, source, content.action, content.params, (body, error = null) =>
        this.write(id, 'callback', source, content.action, [], body, error),
      );
    }
  }

  write(id, type, source, action, params, body, error) {
    // As many as are said at once travel together, 50 at most.
    if (this.batch.push({ id, type, source, fromId: 'IPv4://1', fromName: this.name, targetId: 'IPv4://2',
      content: { action, params }, time: Date.now(), data: { body, error } }) === 1) {
      setImmediate(() => {
        while (this.batch.length) this.socket.write(pack(Buffer.from(pack(this.batch.splice(0, 50)))));
      });
    }
  }

  say(type, source, action, ...params) {
    const id = String(++this.drawn).padStart(16, 'x');
    this.write(id, type, source, action, params, null, null);
    return id;
  }

  request(action, ...params) {
    return new Promise((resolve, reject) => {
      this.waiting.set(this.say('request', 'custom', action, ...params), ({ body, error }) =>
        error ? reject(error) : resolve(body),
      );
    });
  }
}

// What Node.js programs pass, and what must not change on the way.
const values = [
  null, true, false, 0, -1, 127, 128, -129, 65536, 2147483647, 2147483648, -2147483649, 4294967295, 4294967296,
  9007199254740991, -9007199254740991, 1.5, -1.5e-7, 1e300, 5e-324, 1e21, Infinity, '', 'é☃😀 \u0000 中文',
  'x'.repeat(70000), [], [[[]]], [1, [null, [2.5, ['a']]]], {}, { k: { l: [true, { m: null }] }, 'a b': 1 },
  Buffer.from([]), Buffer.from([0, 127, 128, 255]), Buffer.alloc(70000, 7), new Date(0), new Date(1687362560123),
  9223372036854775807n,
];

const actions = {
  'node/add': (one, other) => one + other,
  'node/echo': (value) => value,
  'node/nothing': () => undefined,
  'node/boom': () => {
    throw Object.assign(new Error('bad'), { name: 'AppError', code: 'E42' });
  },
};

const answer = (action, params, done) => {
  try {
    done(actions[action](...params));
  } catch ({ code, name, message }) {
    done(null, { code, name, message, stack: 'here' });
  }
};

async function branch(port, auth) {
  const peer = new Peer(net.connect(port, '127.0.0.1'), 'node');
  const heard = [];
  peer.on = (type, source, action, params, done) => {
    if (type === 'request') answer(action, params, done);
    else heard.push([type, source, action, params]);
  };
  const lists = [Object.keys(actions), ['to/node']];
  const bound = await new Promise((resolve) => {
    peer.waiting.set(peer.say('request', 'system', 'action:bindAuth', 'node', auth, ...lists), resolve);
  });
  say('bound', bound.error);
  peer.say('notification', 'system', 'action:register', ...lists);
  for (const value of values) {
    const back = await peer.request('rust/echo', value);
    assert.deepStrictEqual(back, value);
  }
  say('same', values.length);
  say('undefined', await peer.request('rust/echo', undefined));
  say('typed', await peer.request('rust/typed', 9007199254740989, 2, 'é', Buffer.from([1, 2]), [5000000000]));
  say('boom', await peer.request('rust/boom').catch((error) => error));
  say('none', await peer.request('none').catch(({ code }) => code));
  let next = 0;
  let right = 0;
  const caller = async () => {
    while (next < 10000) {
      const number = next++;
      const sum = await peer.request('rust/add', number, 1);
      right += sum === number + 1;
    }
  };
  await Promise.all(Array.from({ length: 1000 }, caller));
  say('right', right);
  peer.say('publish', 'custom', 'to/rust', 'é', 5000000000, [1.5, null]);
  while (heard.length < 2) await new Promise(setImmediate);
  say('heard', heard.sort());
}

// What one branch passes and throws to another, through the gateway, and what it publishes.
const between = [
  ...values, undefined, [undefined, null], { u: undefined, n: null }, NaN, -Infinity, 2 ** 53 + 2, -(2 ** 60), 2 ** 63, 2 ** 64,
  0n, 1n, -1n, 10n, 200n, -200n, 4294967296n, 2n ** 53n, 2n ** 60n, 2n ** 64n - 1n, -(2n ** 63n),
  [5000000000n, 5000000000], { big: 7n, small: 7, deep: [{ b: -7n }] }, [-5000000000n, -5000000000], { b: -5000000000n, n: -5000000000 },
  -5000000000n, -5000000000, -(2n ** 53n) + 1n, -(2n ** 31n) - 1n, -(2n ** 31n), -(2n ** 31n) - 1n, [[-5000000000n, -5000000000]],
  { $callback: 0 }, [{ $callback: 0 }, { $callback: 'x', more: 1 }], Array.from({ length: 20 }, (_, at) => BigInt(at)),
];
const thrown = [
  'just text', '', 5, -1.5, 0, true, [], [1, 'two', undefined], {}, { a: 1, code: 7 }, { message: 7 }, { code: 2, name: 'X' },
  { name: 'TypeError', message: 'bad', code: 'ENOENT', errno: -2, path: '/x', stack: 'here', big: 3n, cause: { message: 'inner' } },
];

async function pair(port) {
  const bound = async (name, actions, topics) => {
    const peer = new Peer(net.connect(port, '127.0.0.1'), name);
    const { error } = await new Promise((resolve) => {
      peer.waiting.set(peer.say('request', 'system', 'action:bindAuth', name, null, actions, topics), resolve);
    });
    assert.strictEqual(error, null);
    return peer;
  };
  const one = await bound('one', ['one/echo', 'one/throw'], ['t']);
  const other = await bound('other', [], []);
  let told = () => {};
  one.on = (type, source, action, params, done) => {
    if (type !== 'request') told(params);
    else if (action === 'one/throw') done(null, thrown[params[0]]);
    else done(params[0]);
    one.last = params;
  };
  other.on = () => {};
  for (const value of between) {
    const back = await other.request('one/echo', value);
    assert.deepStrictEqual(one.last, [value]);
    assert.deepStrictEqual(back, value);
  }
  say('same', between.length);
  for (const [at, error] of thrown.entries()) {
    const { data } = await new Promise((resolve) => {
      other.waiting.set(other.say('request', 'custom', 'one/throw', at), (data) => resolve({ data }));
    });
    assert.deepStrictEqual(data, { body: null, error });
  }
  say('thrown', thrown.length);
  const events = [[7], [], [[1, 2]], [1, 2], [null], [undefined], [[]], [{ a: 1 }], ['é'], [7n], [[7n]], [1, -5000000000n], [-5000000000n], [-5000000000],
    [[-5000000000n, 1]], [Array.from({ length: 20 }, (_, at) => BigInt(-5000000000 - at))],
    Array.from({ length: 20 }, (_, at) => BigInt(-5000000000 - at)), between.slice(0, 40)];
  for (const event of events) {
    const heard = new Promise((resolve) => {
      told = resolve;
    });
    other.say('publish', 'custom', 't', ...event);
    assert.deepStrictEqual(await heard, event);
  }
  say('heard', events.length);
}

function master() {
  const server = net.createServer((socket) => {
    const peer = new Peer(socket, 'branch');
    peer.on = async (type, source, action, params, done) => {
      if (action === 'action:bindAuth') {
        say('bind', params);
        if (params[1] === 'k') done(null);
        else done(null, { code: 'BIND_ERROR', name: 'Error', message: '校验失败' });
      } else if (action === 'action:register') {
        say('register', params);
      } else if (action === 'ours') {
        // It calls the branch for as many values as there are, and says how many came back as they went.
        let same = 0;
        for (const value of values) {
          assert.deepStrictEqual(await peer.request('rust/echo', value), value);
          same += 1;
        }
        peer.say('publish', 'custom', 'to/rust', 'é', 5000000000, [1.5, null]);
        peer.say('notification', 'custom', 'news', { x: 1 });
        done(same);
      } else if (type === 'request') {
        answer(action, params, done);
      } else {
        say(type, [source, action, params]);
      }
    };
  });
  server.listen(0, '127.0.0.1', () => say('port', server.address().port));
}

const [role, port, auth] = process.argv.slice(2);
const failed = (error) => {
  say('failed', String((error && error.stack) || error));
  process.exit(1);
};
process.on('unhandledRejection', failed);
if (role === 'branch') branch(Number(port), auth).catch(failed);
else if (role === 'pair') pair(Number(port)).catch(failed);
else master();
// Whoever started it has gone, or it takes too long.
process.stdin.on('end', () => process.exit(0)).resume();
setTimeout(() => failed('it takes too long'), 25000);
