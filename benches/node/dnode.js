'use strict';
// dnode, with `weak` off: it is an optional native module that needs a compiler.

const dnode = require('dnode');
const { drive, options, ready, report } = require('./drive');

const told = options();

if (told.part === 'serve') {
  const server = dnode({
    add(a, b, reply) { reply(a + b); },
    echo(text, reply) { reply(text); },
  }, { weak: false });
  const listening = server.listen(0, '127.0.0.1', () => ready(listening.address().port));
} else {
  const connect = () => new Promise((resolve, reject) => {
    const client = dnode(undefined, { weak: false });
    client.on('remote', resolve);
    client.on('error', reject);
    client.connect({ host: told.host, port: told.port });
  });
  const call = told.work === 'add'
    ? (remote, number, done) => remote.add(number, 1, (sum) => done(null, sum))
    : (remote, _number, done) => remote.echo(told.text, (text) => done(null, text));
  const connecting = Array.from({ length: told.connections }, connect);
  report(Promise.all(connecting).then((remotes) => drive(told, remotes, call)));
}
