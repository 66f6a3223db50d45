# The image of operator, runner and command line: one program on a slim Debian.
#
#   docker build -t stillframe/stillframe:0.1.0 .
#   docker build --build-arg PROFILE=dev ...        quicker to make, slower to run: what the tests use
ARG RUST_VERSION=1.95.0

FROM docker.io/library/rust:${RUST_VERSION}-bookworm AS build
ARG PROFILE=release
WORKDIR /src
COPY . .
# Crates and compiled dependencies stay in caches between builds; the program is what leaves.
RUN --mount=type=cache,id=stillframe-crates,target=/usr/local/cargo/registry \
    --mount=type=cache,id=stillframe-target,target=/src/target \
    cargo build --locked --profile "$PROFILE" --features operator --bin stillframe \
    && if [ "$PROFILE" = dev ]; then out=debug; else out=$PROFILE; fi \
    && install -D -m 755 "target/$out/stillframe" /out/stillframe \
    && strip --strip-debug /out/stillframe

FROM docker.io/library/debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Stillframe" \
      org.opencontainers.image.description="Physical hot backups of MySQL: operator, runner and command line" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/stillframe/stillframe" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The roots that stores' certificates are checked against.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/stillframe /usr/bin/stillframe
# A number, so that Kubernetes can see that it is not root. Runners beside a database get the database's instead.
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["/usr/bin/stillframe"]
CMD ["--help"]
