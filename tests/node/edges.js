// The original dnode as a client of a gateway whose result callbacks take a result. Argument: the port.
// Prints one line of JSON for each thing that it found, and ends.
'use strict';
const dnode = require('dnode');

const say = (what, value) => process.stdout.write(JSON.stringify([what, value]) + '\n');

const d = dnode({}, { weak: false });
d.on('remote', async (remote) => {
  const call = (name, ...args) =>
    new Promise((resolve) => remote[name](...args, (result, error) => resolve(error || result)));
  say('integers', await call('integers', 2 ** 60, -(2 ** 63), 2 ** 53 + 2));
  say('keys', JSON.stringify(await call('in_order', { z: 1, a: { y: 2, b: 3 }, 10: 4 })));
  say('data', await call('echo', { $callback: 0 }));
  say('data beside a function', await call('beside', () => {}, { $callback: 0 }));
  // Values that come back otherwise than JSON has them. (The original itself loses a key __proto__.)
  const deep = (depth) => (depth === 0 ? 1 : [{ deep: deep(depth - 1) }]);
  const own = JSON.parse('{"constructor":2,"toString":3,"hasOwnProperty":4,"":5,"a.b":6,"0":7,"$callback":8}');
  const values = [
    0, -0, 1.5, -1e-7, 5e-324, Number.MAX_VALUE, 1e21, 123456789012345680000, 2 ** 53, 2 ** 53 + 2, 2 ** 60, 2 ** 63, -(2 ** 63), 2 ** 64,
    0.1 + 0.2, NaN, -Infinity, '', 'é☃😀', '\u0000\u2028"\\/', '\ud83d', 'x'.repeat(100000), true, null, [], {}, [[[]]], [undefined], new Date(0),
    { $callback: 0 }, { $callback: [0] }, [{ $callback: 1 }, { $callback: 0 }], { $callback: 0, more: 1 }, deep(50), own,
    Array.from({ length: 5000 }, (_, at) => at), { z: 1, y: 2, 5: 3, 1: 4 }, '[Function]', '[Circular]', { method: 'cull', arguments: [0] },
  ];
  const changed = [];
  for (const value of values) {
    const sent = JSON.stringify([value]);
    const back = JSON.stringify([await call('in_order', value)]);
    if (back !== sent.replace('\\ud83d"]', '\ufffd"]')) changed.push([sent.slice(0, 200), back.slice(0, 200)]);
  }
  say('changed', changed);
  // The only function is an argument, and the action takes it.
  const heard = [];
  await new Promise((resolve) => {
    remote.three((...all) => {
      heard.push(all);
      if (heard.length === 3) resolve();
    });
  });
  // What an unwanted result would be told by.
  await call('echo', 1);
  say('heard', heard);
  // The same of a function that came from Rust.
  const taker = await call('taker');
  say('taken', await new Promise((resolve) => taker((...all) => resolve(all))));
  say('long', (await call('echo', 'x'.repeat(40000000))).name);
  // As many arguments as cut the connection once.
  const many = Array.from({ length: 50 }, () => 'x'.repeat(400000));
  say('many', (await call('echo', many)).name);
  say('many of them', await Promise.all(many.map((text) => call('len', text))).then((all) => all.length));
  say('after', await call('echo', 'here'));
  d.end();
  process.exit(0);
});
d.on('error', (error) => say('error', String(error)));
d.on('fail', (error) => say('fail', String(error)));
d.connect(Number(process.argv[2]));
setTimeout(() => {
  say('late', null);
  process.exit(1);
}, 25000);
