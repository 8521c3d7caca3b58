# The programs and the bundled model. Other weights are downloaded on first use, into /home/user/.cache.
#   docker build -t diff-v2m .                              for CPUs
#   docker build -t diff-v2m --build-arg DEVICE=cuda .      for NVIDIA GPUs; run it with --gpus all
#   docker run --rm -v "$PWD:/work" diff-v2m diff-v2m video.mp4
#   docker run --rm -v "$PWD:/work" -p 127.0.0.1:7860:7860 -e DIFF_V2M_STUDIO_PASSWORD diff-v2m
FROM python:3.11-slim-bookworm
ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY requirements.txt requirements-sat.txt requirements-studio.txt constraints.txt ./
# PyPI's torch brings the CUDA libraries; PyTorch's own index has builds without.
RUN if [ "$DEVICE" = cpu ]; then \
        pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
            $(grep -oE '^(torch|torchvision|torchaudio)==[0-9.]+' requirements.txt); \
    fi \
    && pip install -c constraints.txt -r requirements.txt -r requirements-studio.txt \
    && pip install --no-deps -r requirements-sat.txt
COPY . .
RUN pip install --no-deps -e . && useradd --create-home user && install -d -o user /work
USER user
WORKDIR /work
EXPOSE 7860
CMD ["diff-v2m-studio", "--host", "0.0.0.0"]
