// The Node.js peer. Arguments: the broker's URL, the file server's, and the subject of its orders.

import { connect } from "@nats-io/transport-node";

import { serve } from "./peer.mjs";

const [broker, fileserver, orders] = process.argv.slice(2);
const nc = await connect({ servers: broker, name: orders });
await serve(nc, orders, { name: "node", id: "node-1", broker, fileserver });
