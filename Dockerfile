# Two stages: one that has the tools to build, one that has what runs. No BuildKit needed.
ARG NODE_IMAGE=node:22-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
# Only where another registry than npm's own is wanted.
ARG NPM_REGISTRY=
COPY package.json package-lock.json ./
# Without scripts: the package's own `prepare` would build what is not copied yet; dependencies bring their binaries.
RUN npm ci --ignore-scripts --no-audit --no-fund ${NPM_REGISTRY:+--registry="$NPM_REGISTRY"}
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build && npm prune --omit=dev --ignore-scripts --no-audit --no-fund

FROM ${NODE_IMAGE}
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080 DATA_DIR=/data
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
# The directory is made here so that a new volume takes over its owner.
RUN ln -s /app/dist/main.js /usr/local/bin/roundhouse && mkdir /data && chown node:node /data
USER node
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD roundhouse health --node 127.0.0.1:$PORT --timeout 4s
# As an array, so that node itself gets SIGTERM: it stops within 8 s, before docker's 10 s are over.
ENTRYPOINT ["node", "--max-semi-space-size=64", "/app/dist/main.js"]
CMD ["serve"]
