// A picture to score, drawn here.
import { crc32, deflateSync } from 'node:zlib';

function chunk(kind, data) {
  const body = Buffer.concat([Buffer.from(kind), data]);
  const bytes = Buffer.alloc(body.length + 8);
  bytes.writeUInt32BE(data.length);
  body.copy(bytes, 4);
  bytes.writeUInt32BE(crc32(body), body.length + 4);
  return bytes;
}

/** A square PNG of a sun above a sea. */
export function picture(side) {
  const rows = [];
  for (let y = 0; y < side; y += 1) {
    // Each row starts with its filter, none.
    rows.push(0);
    for (let x = 0; x < side; x += 1) {
      const isSun = Math.hypot(x / side - 0.6, y / side - 0.4) < 0.2;
      const isSea = y / side > 0.7;
      const light = Math.round((60 * y) / side + 10 * Math.sin(x));
      rows.push(...(isSun ? [250, 200 - light, 60] : isSea ? [30, 70 + light, 140] : [200 + light / 2, 90 + light, 80]));
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  // Eight bits, red, green and blue.
  header.set([8, 2], 8);
  const parts = [chunk('IHDR', header), chunk('IDAT', deflateSync(Buffer.from(rows))), chunk('IEND', Buffer.alloc(0))];
  return Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), ...parts]);
}
