/** Ranges of files, asked for over a MessagePort: between the scorer and the downloader, past the page. */
import { ImatchError, plain } from './error';
import type { PlainError } from './protocol';

/** Bytes `offset` to `offset + length` of a file. */
export type Read = (name: string, offset: number, length: number) => Promise<Uint8Array>;

interface Question {
  readonly id: number;
  readonly range: Parameters<Read>;
}

interface Reply {
  readonly id: number;
  readonly bytes?: Uint8Array;
  readonly error?: PlainError;
}

/** Answers the questions that come over `port` until it is closed. */
export function answerReads(port: MessagePort, read: Read): void {
  port.onmessage = async ({ data: { id, range } }: MessageEvent<Question>) => {
    const reply: Reply = await read(...range).then(
      (bytes) => ({ id, bytes }),
      (thrown: unknown) => ({ id, error: plain(thrown) }),
    );
    port.postMessage(reply);
  };
}

/** Reads over `port`, and keeps the first failure: the engine may report it in words of its own. */
export class PortReader {
  readonly #port: MessagePort;
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  #lastId = 0;
  failure: ImatchError | null = null;

  constructor(port: MessagePort) {
    this.#port = port;
    port.onmessage = ({ data }: MessageEvent<Reply>) => {
      this.#waiting.get(data.id)?.(data);
      this.#waiting.delete(data.id);
    };
  }

  readonly read: Read = async (...range) => {
    const id = ++this.#lastId;
    const reply = new Promise<Reply>((resolve) => this.#waiting.set(id, resolve));
    this.#port.postMessage({ id, range } satisfies Question);
    const { bytes, error } = await reply;
    if (bytes !== undefined) return bytes;
    this.failure ??= new ImatchError(error ?? { code: 'internal', message: 'a read was not answered' });
    throw this.failure;
  };
}
