# The ottla command alone: a static binary, and no system beneath it.
FROM rust:1-slim AS build
WORKDIR /ottla
COPY . .
RUN rustup target add "$(uname -m)-unknown-linux-musl" \
 && cargo build --release --locked -p ottla-cli --target "$(uname -m)-unknown-linux-musl" \
 && cp "target/$(uname -m)-unknown-linux-musl/release/ottla" /ottla/ottla

FROM scratch
COPY --from=build /ottla/ottla /ottla
EXPOSE 9308
ENTRYPOINT ["/ottla"]
