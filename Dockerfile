# The four binaries in an image without a shell, for compose.yaml. They are built from source: only the base images and the
# packages of bun.lock are downloaded.
FROM oven/bun:1.4.5 AS build
WORKDIR /source
COPY package.json bun.lock ./
COPY patches patches
RUN bun install --frozen-lockfile --production --ignore-scripts
COPY tsconfig.json *.ts ./
COPY scripts/build.ts scripts/
COPY cql cql
COPY grafana/dashboards grafana/dashboards
COPY lib lib
COPY schemas schemas
COPY sql sql
# Docker sets TARGETARCH: amd64 or arm64. The baseline for x64 also runs without AVX2, which many rented machines lack.
ARG TARGETARCH=amd64
RUN case "$TARGETARCH" in \
      amd64) target=bun-linux-x64-baseline ;; \
      arm64) target=bun-linux-arm64 ;; \
      *) echo "no binaries for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    bun scripts/build.ts --target "$target" --outdir /binaries && mkdir /data

FROM gcr.io/distroless/base-nossl-debian12:nonroot
COPY --from=build /binaries /usr/local/bin
# A new volume takes its owner from this directory.
COPY --from=build --chown=65532:65532 /data /data
# A binary reads the .env of its working directory: here is none, and the root file system is read-only.
WORKDIR /
USER 65532:65532
ENV BIND_ADDRESS=0.0.0.0 DATA_DIR=/data LOG_FORMAT=json
CMD ["local"]
