import type { Connection } from './connection';
import { ImatchError, messageOf, unlessAborted } from './error';
import type { Loaded, PlainError, ScorerCalls } from './protocol';

/** How long the memory of a device is waited for to be freed, before the worker that holds it is ended. */
const DISPOSE_MS = 2000;

/** A scorer with a model on a device. */
export interface Scorer {
  readonly connection: Connection<ScorerCalls>;
  readonly loaded: Loaded;
}

/**
 * The scorer behind an evaluator. GPUs get lost: drivers restart, laptops sleep, another program takes the memory.
 * A request that meets such a loss, or a crash of the wasm module, is repeated once on a fresh scorer with the same
 * model; requests that were lost together share it. What fails a second time fails.
 */
export class Recovery {
  readonly #restart: (signal: AbortSignal) => Promise<Scorer>;
  readonly #end = new AbortController();
  #scorer: Scorer;
  #restarting: Promise<Scorer> | null = null;
  #disposed = false;

  constructor(scorer: Scorer, restart: (signal: AbortSignal) => Promise<Scorer>) {
    this.#scorer = scorer;
    this.#restart = restart;
  }

  /** What the running scorer says about itself. */
  get loaded(): Loaded {
    return this.#scorer.loaded;
  }

  get closed(): boolean {
    return this.#disposed || (this.#restarting === null && this.#scorer.connection.closed);
  }

  /** Runs `work`, once more where the scorer is lost on the way. */
  async run<T>(work: (connection: Connection<ScorerCalls>) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const scorer = await unlessAborted(this.#restarting ?? Promise.resolve(this.#scorer), signal);
    try {
      return await work(scorer.connection);
    } catch (error) {
      if (!this.#isLoss(error, scorer)) throw error;
      const fresh = await unlessAborted(this.#replace(scorer, error), signal);
      return work(fresh.connection);
    }
  }

  /** Asks the scorer without starting another one for it. */
  get connection(): Connection<ScorerCalls> {
    return this.#scorer.connection;
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#end.abort();
    const { connection } = this.#scorer;
    // A device that hangs answers nothing any more.
    const late = new Promise<PlainError>((resolve) =>
      setTimeout(resolve, DISPOSE_MS, { code: 'aborted', message: 'the evaluator was disposed' }),
    );
    const freed = connection.ask('dispose', {}).catch(() => null);
    connection.close((await Promise.race([freed, late])) ?? undefined);
  }

  #isLoss(error: unknown, { connection }: Scorer): error is ImatchError {
    if (this.#disposed || !connection.crashed || !(error instanceof ImatchError)) return false;
    return error.code === 'device_lost' || error.code === 'internal';
  }

  async #replace(lost: Scorer, cause: ImatchError): Promise<Scorer> {
    // Another request that was lost with it may have seen to that.
    if (lost !== this.#scorer) return this.#restarting ?? this.#scorer;
    this.#restarting ??= this.#fresh(cause).finally(() => (this.#restarting = null));
    return this.#restarting;
  }

  async #fresh(cause: ImatchError): Promise<Scorer> {
    const scorer = await this.#restart(this.#end.signal).catch((error: unknown) => {
      const message = `${cause.message}; starting afresh failed: ${messageOf(error)}`;
      throw new ImatchError({ code: cause.code, message });
    });
    if (this.#disposed) {
      scorer.connection.close();
      throw cause;
    }
    this.#scorer = scorer;
    return scorer;
  }
}
