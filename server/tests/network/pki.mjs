// Certificates made for one run: an authority, what it signs, and a home folder in which Chromium trusts it.

import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** An authority in `folder`. `sign(name, subjects)` makes `{ certificate, key }` for subjects such as `IP:100.64.0.2`. */
export async function makeAuthority(folder) {
  await mkdir(folder, { recursive: true });
  const at = (name) => path.join(folder, name);
  await run('openssl', ['req', '-x509', ...KEY, '-days', '30', '-subj', '/CN=Offhook test authority', '-keyout', at('ca.key'), '-out', at('ca.pem'),
    '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign']);

  return {
    certificate: at('ca.pem'),

    async sign(name, subjects) {
      const [certificate, key, request, extensions] = ['pem', 'key', 'csr', 'ext'].map((end) => at(`${name}.${end}`));
      await run('openssl', ['req', ...KEY, '-subj', `/CN=${name}`, '-keyout', key, '-out', request]);
      await writeFile(extensions, [`subjectAltName=${subjects.join(',')}`, 'extendedKeyUsage=serverAuth', 'keyUsage=critical,digitalSignature', 'basicConstraints=CA:FALSE'].join('\n'));
      await run('openssl', ['x509', '-req', '-in', request, '-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '20', '-out', certificate, '-extfile', extensions]);
      return { certificate, key };
    },
  };
}

/** Makes `home` a home folder in which Chromium trusts these authorities (none: just the public ones). */
export async function makeHome(home, authorities = []) {
  const database = path.join(home, '.pki/nssdb');
  await mkdir(database, { recursive: true });
  await run('certutil', ['-N', '-d', `sql:${database}`, '--empty-password']);
  for (const [index, certificate] of authorities.entries()) {
    await run('certutil', ['-A', '-d', `sql:${database}`, '-n', `authority ${index}`, '-t', 'C,,', '-i', certificate]);
  }
  return home;
}
