import { createSHA256, sha256 } from 'hash-wasm';

/** SHA-256 of bytes that come one chunk after the other. */
export interface Digest {
  update(chunk: Uint8Array): void;
  /** Begins anew. */
  reset(): void;
  /** 64 lower-case hexadecimal digits. Nothing can be added afterwards. */
  finish(): string;
}

/** WebCrypto takes whole buffers only, and a model is no buffer. */
export async function digest(): Promise<Digest> {
  const hasher = await createSHA256();
  return {
    update: (chunk) => void hasher.update(chunk),
    reset: () => void hasher.init(),
    finish: () => hasher.digest('hex'),
  };
}

/** A short name for an address, fit for a file: 128 bits of its SHA-256. */
export async function nameFor(address: string): Promise<string> {
  return (await sha256(address)).slice(0, 32);
}
