# NVIDIA's Triton, with our preprocessing backend beside its own backends.
ARG COMPILER_IMAGE=gcc:14.2.0-bookworm
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.07-py3

# The library that bounds batches by rows (deploy/batch_strategy/).
FROM $COMPILER_IMAGE AS batching

WORKDIR /build
COPY deploy/batch_strategy/batch_strategy.c ./
RUN cc -std=gnu11 -O2 -shared -fPIC -o batchstrategy.so batch_strategy.c

FROM $TRITON_IMAGE

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_BREAK_SYSTEM_PACKAGES=1 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1

# The packages that backends/preprocess imports, without their dependencies. NumPy is the image's own.
COPY constraints.txt /opt/tessera/
RUN python3 -m pip install --no-deps --constraint /opt/tessera/constraints.txt pillow pypdfium2 tokenizers

COPY backends/preprocess /opt/tritonserver/backends/preprocess
COPY --from=batching /build/batchstrategy.so /opt/tritonserver/backends/onnxruntime/
COPY --from=batching /build/batchstrategy.so /opt/tritonserver/backends/tensorrt/
COPY deploy/health_check.py /opt/tessera/
RUN chmod -R a+rX /opt/tritonserver/backends/preprocess /opt/tessera \
 && install --directory --owner 1000 --group 1000 /models /cache

# Fail the build if the image could not serve.
ARG ONNXRUNTIME_BACKEND=libtriton_onnxruntime.so
RUN cd /opt/tritonserver/backends && test -f "onnxruntime/$ONNXRUNTIME_BACKEND" \
 && PYTHONPATH=. python3 -c "import preprocess.steps, preprocess.decode_pool"

USER 1000:1000
# What Compose or Kubernetes adds as command or arguments are further flags.
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "tritonserver", \
    "--model-repository=/models/repository", \
    "--backend-directory=/opt/tritonserver/backends", \
    "--disable-auto-complete-config", \
    "--model-control-mode=none", \
    "--exit-on-error=false", \
    "--strict-readiness=false", \
    "--allow-http=false", \
    "--grpc-address=0.0.0.0", \
    "--grpc-port=8001", \
    "--grpc-restricted-protocol=shared-memory,trace,logging:Off=never", \
    "--grpc-infer-allocation-pool-size=1", \
    "--grpc-http2-min-recv-ping-interval-without-data=10000", \
    "--metrics-address=0.0.0.0", \
    "--metrics-port=8002", \
    "--backend-config=python,shm-default-byte-size=16777216"]
