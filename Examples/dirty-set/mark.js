#!/usr/bin/env node
// Writes to Redis and marks what was written, for Sluice with capture: dirty-set.
//
// Usage: mark.js PORT; needs the package redis (node-redis 4 or later).
const { createClient } = require('redis');

// Runs a write command and marks its key, by the function that Sluice loads.
function write(client, key, ...command) {
  return client.sendCommand(['FCALL', 'sluice_write', '1', key, ...command]);
}

// Runs write commands and marks their first arguments, with nothing loaded.
function writeInTransaction(client, ...commands) {
  let transaction = client.multi();
  for (const command of commands) transaction = transaction.addCommand(command);
  const now = String(Date.now());
  const marks = commands.flatMap((command) => [now, command[1]]);
  return transaction.addCommand(['ZADD', 'sluice:dirty', 'LT', ...marks]).exec();
}

async function main() {
  const client = createClient({ socket: { port: Number(process.argv[2]) } });
  await client.connect();
  console.log(await write(client, 'c:javascript', 'INCRBY', 'c:javascript', '5'));
  console.log(await writeInTransaction(
    client, ['INCRBY', 'c:javascript', '2'], ['HSET', 'session:javascript', 'user_id', '2']));
  await client.quit();
}

main();
