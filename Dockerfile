# syntax=docker/dockerfile:1
# The image for those who build with a container runtime; `cargo xtask image` makes the same one without.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Static, because the final image holds nothing else. With --target the flag applies to the binary alone and not to
# build scripts.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release --target x86_64-unknown-linux-gnu --package sluice-cli --bin sluice \
    && cp target/x86_64-unknown-linux-gnu/release/sluice /sluice

FROM scratch
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="Gateway API controller and proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/
WORKDIR /
COPY --from=build /sluice /sluice
USER 65532
ENTRYPOINT ["/sluice"]
