// Reads the load twice with graphql-ws, and prints what the second reading took:
//   node reader.mjs URL SUBSCRIPTIONS DOCUMENT
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, subscriptions, query] = process.argv.slice(2);

class Uncompressed extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols, { perMessageDeflate: false });
  }
}

async function read() {
  const started = performance.now();
  const before = process.cpuUsage();
  const client = createClient({ url, webSocketImpl: Uncompressed, retryAttempts: 0 });
  let rows = 0;
  const one = () =>
    new Promise((resolve, reject) =>
      client.subscribe(
        { query },
        {
          next(message) {
            rows += message.data.EVM.Transfers.length;
          },
          error: reject,
          complete: resolve,
        },
      ),
    );
  await Promise.all(Array.from({ length: Number(subscriptions) }, one));
  await client.dispose();
  const { user, system } = process.cpuUsage(before);
  const clock = (performance.now() - started) / 1e3;
  return { rows, clock, processor: (user + system) / 1e6 };
}

await read();
console.log(JSON.stringify(await read()));
