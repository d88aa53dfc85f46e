// A certified OpenID provider with one client, for the check `oidc`. Arguments: its directory of packages, its port, the
// client's address.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [packages, port, client] = process.argv.slice(2);
const require = createRequire(`${packages}/node_modules/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'app',
    client_secret: 'a secret of the client & the proxy',
    redirect_uris: [`${client}/oauth2/callback`],
    post_logout_redirect_uris: [`${client}/`],
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
provider.listen(Number(port), '127.0.0.1');
