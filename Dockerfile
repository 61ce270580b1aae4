# The four binaries in an image without a shell: compose.yaml starts them. Built from source, so that nothing is
# downloaded but the base images and the packages that bun.lock names.
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
# Docker sets it: amd64 or arm64. The baseline of x64 runs on processors without AVX2 too, as many rented ones are.
ARG TARGETARCH=amd64
RUN case "$TARGETARCH" in \
      amd64) target=bun-linux-x64-baseline ;; \
      arm64) target=bun-linux-arm64 ;; \
      *) echo "no binaries for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    bun scripts/build.ts --target "$target" --outdir /binaries && mkdir /data

FROM gcr.io/distroless/base-nossl-debian12:nonroot
COPY --from=build /binaries /usr/local/bin
# A new volume takes its owner from here.
COPY --from=build --chown=65532:65532 /data /data
# An .env of the working directory would be read: there is none, and the root file system is read-only.
WORKDIR /
USER 65532:65532
ENV BIND_ADDRESS=0.0.0.0 DATA_DIR=/data LOG_FORMAT=json
CMD ["local"]
