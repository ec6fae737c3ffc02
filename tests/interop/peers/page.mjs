// The browser peer: what page.html does. The query says where the broker's WebSocket is, and the
// subject of its orders. The file server is where the page comes from.

import { wsconnect } from "@nats-io/nats-core";

import { serve } from "./peer.mjs";

const query = new URLSearchParams(location.search);
const broker = query.get("broker");
const nc = await wsconnect({ servers: broker, name: query.get("orders") });
const settings = { name: "browser", id: "browser-1", broker, fileserver: location.origin };
await serve(nc, query.get("orders"), settings);
