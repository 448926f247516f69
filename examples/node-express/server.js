// Says hello on $PORT with Express, a package from the registry.
"use strict";

const os = require("node:os");
const express = require("express");

const app = express();
app.get("/", (request, response) => {
  response.type("text").send(`Hello from Express\nnode ${process.version}, host ${os.hostname()}, user ${process.getuid()}\n`);
});

const server = app.listen(process.env.PORT, () => {
  console.log(`listening on port ${server.address().port}`);
});

// Ends in good order when the app is stopped.
process.on("SIGTERM", () => server.close());
