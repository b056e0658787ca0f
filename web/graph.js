import { app } from "../../scripts/app.js";

/** The graph on the screen that all subgraphs are in. */
export function rootGraph() {
  return app.rootGraph ?? app.graph;
}

/** The node with an id of the server's: "3", or "5:3" for node 3 in the subgraph of node 5. Undefined where there is none. */
export function findNode(executionId) {
  const path = String(executionId).split(":");
  const last = path.pop();
  const graph = path.reduce((graph, id) => graph?.getNodeById(id)?.subgraph, rootGraph());
  return graph?.getNodeById(last) ?? undefined;
}
