/** Starting a scorer: a device, the model's files, and the model on the device. */
import { Connection } from './connection';
import { ImatchError, plain } from './error';
import { cpuLack, gpuLack } from './fit';
import { askDownloader, gather, sourceOf, type Gathered, type SourceOptions } from './models';
import type { Chosen, DeviceChoice, Origin, Progress, ScorerCalls } from './protocol';
import type { Scorer } from './recovery';

export interface StartOptions extends SourceOptions {
  readonly device?: DeviceChoice;
  readonly software?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** Downloads beyond this are looked at first: what the headers rule out is not fetched. */
const LOOKED_AT_BYTES = 64 * 1024 * 1024;

/** A scorer's worker. */
export function connect(): Connection<ScorerCalls> {
  return new Connection(new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' }));
}

/**
 * Gathers the files, unless they are `known`, and starts a scorer with them. Where `auto` finds a GPU that fails, a
 * fresh worker starts on the CPU.
 */
export async function start(
  options: StartOptions,
  known?: Gathered,
): Promise<{ gathered: Gathered; scorer: Scorer }> {
  const choice = options.device ?? 'auto';
  let gathered = known;
  const once = async (planned: () => Promise<number | undefined>) =>
    (gathered ??= await gather(options, { ...options, planned: await planned() }));
  const finish = (scorer: Scorer) => {
    if (gathered === undefined) throw new ImatchError({ code: 'internal', message: 'a scorer without files' });
    return { gathered, scorer };
  };
  try {
    return finish(await startOn(choice, options, once));
  } catch (error) {
    if (choice !== 'auto' || !(error instanceof ImatchError) || !failedOnGpu(error)) throw error;
    const reason = `the GPU was tried and failed (${error.message})`;
    const scorer = await startOn('cpu', options, once).catch((second: unknown) => {
      throw withReason(second, reason);
    });
    return finish({ ...scorer, loaded: { ...scorer.loaded, reason } });
  }
}

async function startOn(
  choice: DeviceChoice,
  options: StartOptions,
  once: (planned: () => Promise<number | undefined>) => Promise<Gathered>,
): Promise<Scorer> {
  const { software = false, signal, onProgress } = options;
  const connection = connect();
  const end = new AbortController();
  const stop = () => end.abort();
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const chosen = await connection.ask('start', { device: choice, software }, { signal, onProgress });
    const { origin } = sourceOf(options);
    const found = await once(async () =>
      origin === null ? undefined : look(connection, origin, choice, chosen, signal),
    );
    const { name, files } = found;
    // Reading what is stored twice at once takes less time than hashing it before anything else.
    const sound = soundness(found, end.signal);
    sound.catch(() => undefined);
    const loaded = await connection.ask('load', { name, files }, { signal, onProgress }).catch(async (error: unknown) => {
      // Whatever came of damaged files, the damage explains it.
      if (!(error instanceof ImatchError && error.code === 'aborted')) await sound;
      throw error;
    });
    await sound;
    return { connection, loaded };
  } catch (error) {
    end.abort();
    connection.close();
    throw error;
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/** Fails where the headers of a large model say that it cannot run here; else gives what was planned for its download. */
async function look(
  connection: Connection<ScorerCalls>,
  origin: Origin,
  choice: DeviceChoice,
  chosen: Chosen,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { device } = chosen;
  const { port1, port2 } = new MessageChannel();
  const ask = { ...origin, port: port1 };
  const { name, files, missing, planned } = await askDownloader('examine', ask, { signal, transfer: [port1] });
  if (missing <= LOOKED_AT_BYTES) {
    port2.close();
    return planned;
  }
  const inspecting = connection.ask('inspect', { name, files, port: port2 }, { signal, transfer: [port2] });
  const needs = await inspecting.catch((error: unknown) => {
    // A server that sends no parts, for one, may still send the whole.
    if (error instanceof ImatchError && error.code === 'network') return null;
    throw error;
  });
  if (needs === null) return planned;
  const lacks = device === 'cpu' ? [cpuLack(needs)] : [gpuLack(needs, chosen)];
  if (choice === 'auto' && device === 'gpu') lacks.push(cpuLack(needs));
  if (lacks.includes(null)) return planned;
  throw new ImatchError({ code: 'unsupported', message: `${needs.name}: ${lacks.join(', and ')}` });
}

/** Fails where stored files are not what they were when they were stored. */
async function soundness({ origin, unchecked }: Gathered, signal: AbortSignal): Promise<void> {
  if (origin === null || !unchecked) return;
  const damaged = await askDownloader('recheck', origin, { signal });
  if (damaged.length === 0) return;
  const names = damaged.join(', ');
  const message = `${names}: the stored copy was damaged and has been removed; loading again fetches it anew`;
  throw new ImatchError({ code: 'integrity', message });
}

/** Failures that speak of the GPU and not of the model, the network or a request to stop. */
function failedOnGpu({ code, device }: ImatchError): boolean {
  return device === 'gpu' && ['device', 'device_lost', 'out_of_memory', 'self_test', 'internal'].includes(code);
}

/** A failure on the CPU with the one that led there. */
function withReason(error: unknown, reason: string): unknown {
  if (!(error instanceof ImatchError) || error.code === 'aborted') return error;
  return new ImatchError({ ...plain(error), message: `${error.message}; before that, ${reason}` });
}
