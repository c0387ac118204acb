// What scoring costs natively.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';

const LIMIT_S = 900;
const SAMPLING_MS = 10;

/** The largest resident memory of a process so far, in bytes; 0 once it is gone (`proc_pid_status(5)`). */
function peakOf(pid) {
  try {
    const [, kibibytes = 0] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return kibibytes * 1024;
  } catch {
    return 0;
  }
}

/** One run of the command line: what it prints, and its peak memory. */
async function run(binary, args) {
  const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'inherit'], timeout: LIMIT_S * 1000 });
  let memory = 0;
  const sampling = setInterval(() => (memory = Math.max(memory, peakOf(child.pid))), SAMPLING_MS);
  try {
    const ended = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (status, signal) => resolve({ status, signal }));
    });
    const [output, { status, signal }] = await Promise.all([text(child.stdout), ended]);
    if (signal !== null) throw new Error(`imatch ${args[0]} was ended by ${signal}, after ${LIMIT_S} s it is ended here`);
    if (status !== 0) throw new Error(`imatch ${args[0]} ended with status ${status}`);
    return { result: JSON.parse(output), memory };
  } finally {
    clearInterval(sampling);
  }
}

/** Scores with one element and with all, each in a process of its own. */
export async function measureNative(binary, model, image, requests) {
  const score = ({ flags }) => run(binary, ['score', '--model', model, '--image', image, ...flags, '--json']);
  const one = await score(requests.one);
  const more = await score(requests.more);
  const { load, image: seen, questions } = one.result.timings_ms;
  const figures = {
    load,
    image: seen,
    one: questions,
    more: more.result.timings_ms.questions,
    memory: Math.max(one.memory, more.memory),
  };
  return { figures, result: more.result };
}
