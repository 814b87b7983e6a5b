# The service with its model, for machines without a network. Build it in the repository's root:
#   docker build -t vit4icd .        (with Podman: podman build --format docker -t vit4icd .)
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -p 127.0.0.1:8400:8400 -v vit4icd:/data -v ./keys.txt:/run/keys.txt:ro vit4icd
# keys.txt is made with: docker run --rm vit4icd serve --make-key admin >> keys.txt
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/vit4icd
COPY constraints.txt pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY src ./src
RUN /opt/vit4icd/bin/pip install --no-cache-dir --constraint constraints.txt '.[service]' \
    && /opt/vit4icd/bin/python -m compileall -q /opt/vit4icd

FROM python:3.13-slim
ENV PATH=/opt/vit4icd/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
COPY --from=build /opt/vit4icd /opt/vit4icd
RUN useradd --system --uid 8400 --no-create-home --shell /usr/sbin/nologin vit4icd \
    && install -d -o vit4icd -g vit4icd /data
USER 8400
WORKDIR /data
VOLUME /data
EXPOSE 8400
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8400/readyz', timeout=4)"]
ENTRYPOINT ["vit4icd"]
CMD ["serve", "/data/pictures", "--create", "--host", "0.0.0.0", "--keys", "/run/keys.txt"]
