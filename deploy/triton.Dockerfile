# NVIDIA's Triton, with our preprocessing backend beside its own backends.
#
# Pillow 13 needs Python 3.11, but the image has 3.10. A Python-based backend may bring its own Python (Triton's
# documentation of Python-based backends, "customization"). Ours brings 3.11, and the stub for it from the wheel of the
# same Triton version.

# Debian 11 has an older glibc than NVIDIA's image, so what is built here runs there.
FROM python:3.11.13-slim-bullseye AS python

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY constraints.txt ./
# The packages that backends/preprocess imports, without their dependencies.
RUN pip install --no-deps --constraint constraints.txt numpy pillow pypdfium2 tokenizers
RUN pip download --no-deps --constraint constraints.txt --platform manylinux_2_35_x86_64 --only-binary :all: \
        nvidia-pytriton \
 && python -m zipfile --extract nvidia_pytriton-*.whl wheel \
 && cp wheel/nvidia_pytriton.libs/libcudart-*.so.* /usr/local/lib/ \
 && cp /usr/lib/x86_64-linux-gnu/libffi.so.7* /usr/local/lib/ \
 && install -D --mode 755 --target-directory stub \
        wheel/pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub

FROM python:3.11.13-bullseye AS batching

WORKDIR /build
COPY deploy/batch_strategy/batch_strategy.c ./
RUN cc -std=gnu11 -O2 -shared -fPIC -o batchstrategy.so batch_strategy.c

FROM nvcr.io/nvidia/tritonserver:24.10-py3

COPY --from=python /usr/local /opt/python
# Python derives its library folder from the first `python3` on PATH.
ENV PATH=/opt/python/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
RUN echo /opt/python/lib > /etc/ld.so.conf.d/tessera-python.conf && ldconfig

COPY backends/preprocess /opt/tritonserver/backends/preprocess
COPY --from=python /build/stub /opt/tritonserver/backends/preprocess
COPY --from=batching /build/batchstrategy.so /opt/tritonserver/backends/onnxruntime/
COPY --from=batching /build/batchstrategy.so /opt/tritonserver/backends/tensorrt/
COPY deploy/triton_probe.py /opt/tessera/
RUN cd /opt/tritonserver/backends \
 && cp python/libtriton_python.so python/triton_python_backend_utils.py preprocess/ \
 && chmod -R a+rX preprocess /opt/tessera \
 && install --directory --owner 1000 --group 1000 /models

# Fail the build if the image could not serve.
RUN cd /opt/tritonserver/backends \
 && test -f onnxruntime/libtriton_onnxruntime.so && test ! -e onnxruntime/model.py \
 && ! ldd preprocess/triton_python_backend_stub | grep "not found" \
 && PYTHONPATH=. python3 -c "import preprocess.steps, preprocess.decode_pool"

USER 1000:1000
