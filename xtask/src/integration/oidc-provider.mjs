// A certified OpenID provider with one client, for checks of logins. Arguments: its directory of packages, its
// issuer's URL, the address where it listens, what the client's URLs begin with; for HTTPS the files of a certificate and its key.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [packages, issuer, address, client, certificate, key] = process.argv.slice(2);
const require = createRequire(`${packages}/node_modules/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const provider = new Provider(issuer, {
  clients: [{
    client_id: 'app',
    client_secret: 'a secret of the client & the proxy',
    redirect_uris: [`${client}/oauth2/callback`],
    post_logout_redirect_uris: [new URL('/', client).href],
    grant_types: ['authorization_code', 'refresh_token'],
    token_endpoint_auth_method: 'client_secret_post',
  }],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  // Short enough that the check sees them end, long enough for a slow machine.
  ttl: { AccessToken: 4, IdToken: 600, RefreshToken: 600, Grant: 600, Session: 600, Interaction: 600 },
  cookies: { keys: ['only for this run'] },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com` }) }),
  claims: { openid: ['sub'], email: ['email'] },
});
provider.on('server_error', (_, error) => console.error(error));
provider.on('grant.error', (_, error) => console.error(error));
const server = certificate === undefined
  ? createServer(provider.callback())
  : createSecureServer({ cert: readFileSync(certificate), key: readFileSync(key) }, provider.callback());
const [host, port] = address.split(':');
server.listen(Number(port), host);
