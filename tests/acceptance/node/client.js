// Creates, watches and reads a job: `node client.js PROTO_DIRECTORY ADDRESS SPEC_JSON`. Prints what it saw as JSON.
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [protoDirectory, address, specJson] = process.argv.slice(2);
const definition = loader.loadSync("podium/api/v1/job_service.proto", {
  includeDirs: [protoDirectory],
  keepCase: true,
  longs: Number,
  enums: String,
  oneofs: true,
});
const { JobService } = grpc.loadPackageDefinition(definition).podium.api.v1;
const jobs = new JobService(address, grpc.credentials.createInsecure());

const call = (method, request) =>
  new Promise((resolve, reject) =>
    jobs[method](request, (error, response) => (error ? reject(error) : resolve(response))),
  );

async function watch(jobId) {
  const events = [];
  for await (const { event } of jobs.WatchJob({ job_id: jobId })) {
    events.push({ sequence: event.sequence, payload: event.payload, to: event.state && event.state.to_state });
  }
  return events;
}

async function main() {
  const created = await call("CreateJob", { spec: JSON.parse(specJson) });
  const cancelled = await call("CancelJob", { job_id: created.job.id, reason: "seen enough" });
  const events = await watch(created.job.id);
  const read = await call("GetJob", { job_id: created.job.id });
  let refusal = null;
  try {
    await call("CreateJob", { spec: { backbone: "no_such_backbone" } });
  } catch (error) {
    refusal = grpc.status[error.code];
  }
  console.log(JSON.stringify({ created: created.job, cancelled: cancelled.job.state, events, read: read.job, refusal }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
