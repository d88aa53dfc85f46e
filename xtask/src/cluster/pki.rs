//! The cluster's certificate authority, the API server's certificate, the key that signs service account tokens, and
//! the bearer tokens of the components.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use uuid::Uuid;

use crate::netns::NODE_IP;

/// A user of the API server: the name of its kubeconfig file, its user name and its groups.
struct User {
    file: &'static str,
    name: &'static str,
    groups: &'static str,
}

/// The kubelet and kube-proxy have no more rights than on any other cluster; `admin` is for people and tests.
const USERS: [User; 5] = [
    User {
        file: "kubeconfig",
        name: "admin",
        groups: "system:masters",
    },
    User {
        file: "controller-manager.kubeconfig",
        name: "system:kube-controller-manager",
        groups: "",
    },
    User {
        file: "scheduler.kubeconfig",
        name: "system:kube-scheduler",
        groups: "",
    },
    User {
        file: "kubelet.kubeconfig",
        name: "system:node:k3s",
        groups: "system:nodes",
    },
    User {
        file: "kube-proxy.kubeconfig",
        name: "system:kube-proxy",
        groups: "",
    },
];

/// Writes everything into `directory`, and the kubeconfig files beside it into `state`.
pub fn write(directory: &Path, state: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let ca_key = KeyPair::generate()?;
    let ca = authority()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let key = KeyPair::generate()?;
    let certificate = server()?.signed_by(&key, &Issuer::new(ca, ca_key))?;
    put(directory, "ca.crt", &ca_pem)?;
    put(directory, "apiserver.crt", &certificate.pem())?;
    put(directory, "apiserver.key", &key.serialize_pem())?;
    let signer = KeyPair::generate()?;
    put(directory, "sa.key", &signer.serialize_pem())?;
    put(directory, "sa.pub", &signer.public_key_pem())?;

    let mut tokens = Vec::new();
    for user in &USERS {
        let token = Uuid::new_v4().simple().to_string();
        tokens.push(format!(
            "{token},{},{},\"{}\"\n",
            user.name, user.name, user.groups
        ));
        put(
            state,
            user.file,
            &kubeconfig(&directory.join("ca.crt"), user.name, &token),
        )?;
    }
    put(directory, "tokens.csv", &tokens.concat())
}

fn authority() -> Result<CertificateParams> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(DnType::CommonName, "sluice-e2e-ca");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(ca)
}

fn server() -> Result<CertificateParams> {
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
    ];
    let addresses = [NODE_IP, "10.43.0.1", "127.0.0.1"];
    let all: Vec<String> = names.iter().chain(&addresses).map(ToString::to_string).collect();
    let mut server = CertificateParams::new(all)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    Ok(server)
}

fn kubeconfig(ca: &Path, user: &str, token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: sluice
  cluster:
    server: https://{NODE_IP}:6443
    certificate-authority: {}
users:
- name: {user}
  user:
    token: {token}
contexts:
- name: sluice
  context:
    cluster: sluice
    user: {user}
current-context: sluice
",
        ca.display()
    )
}

fn put(directory: &Path, name: &str, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.join(name);
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    Ok(file.write_all(content.as_bytes())?)
}
