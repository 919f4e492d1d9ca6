'use strict';
// moleculer over its own TCP transporter, without the search by UDP: each end is told where the other one is, or learns it
// from the other's greeting.

const net = require('net');
const { ServiceBroker } = require('moleculer');
const { drive, options, ready, report } = require('./drive');

const told = options();

/** A port that is free now. The transporter does not tell which one it got by itself. */
const freePort = () => new Promise((resolve, reject) => {
  const server = net.createServer();
  server.on('error', reject);
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

const broker = (nodeID, port, urls) => new ServiceBroker({
  nodeID,
  logger: false,
  transporter: { type: 'TCP', options: { udpDiscovery: false, port, urls, useHostname: false } },
});

async function serve() {
  const port = await freePort();
  const server = broker('server', port, [`127.0.0.1:${port}/server`]);
  server.createService({
    name: 'bench',
    actions: {
      add: (context) => context.params.a + context.params.b,
      echo: (context) => context.params.text,
    },
  });
  await server.start();
  ready(port);
}

async function client() {
  if (told.connections !== 1) throw new Error('moleculer has one connection between two nodes');
  const port = await freePort();
  const urls = [`127.0.0.1:${told.port}/server`, `127.0.0.1:${port}/client-${process.pid}`];
  const node = broker(`client-${process.pid}`, port, urls);
  await node.start();
  await node.waitForServices('bench', 15000, 20);
  const call = (_client, number, done) => {
    const answer = told.work === 'add'
      ? node.call('bench.add', { a: number, b: 1 })
      : node.call('bench.echo', { text: told.text });
    answer.then((result) => done(null, result), done);
  };
  return drive(told, [node], call);
}

if (told.part === 'serve') {
  serve().catch((error) => {
    console.error(error);
    process.exit(1);
  });
} else {
  report(client());
}
