# `make demo` and `make test` are all that a newcomer needs; both install what they need.
SWIFT ?= swift
BUILD = $(SWIFT) build -c release
SECONDS_OF_DEMO ?= 10
SECONDS_OF_CHAOS ?= 300
SECONDS_OF_FUZZ ?= 60
RANDOM_STEPS ?= 50000
LARGE_MEMBERS ?= 1000000
# The other servers have the tests in which a server takes part, but for those that choose theirs, as the
# cases of all commands do: `make test` runs these on each. `make servers SERVER_SKIP=none` leaves out none.
SERVER_TESTS ?= CommandTests|IntegrationTests
SERVER_SKIP ?= AdminTests|CaptureTests|ChaosTests|CommandPage|DiskFullTests|FieldDeadlineTests|LeaseTests|MarkEdgeTests|MarksTests|MemoryTests|MirrorTests|NameTests|OwnTableTests|PolicyTests|ReliabilityTests|SentinelTests|ServerTests|StoreTests|CauseTests/(mixed|trimmed|fields)|LargeKeyTests/latency|VerifyTests/(randomCommands|live)

.PHONY: help demo test servers chaos fuzz memory large random reliability build lint format benchmark clean

help:
	@echo "make demo       see it work (first build: 5 to 10 minutes, then 15 seconds)"
	@echo "make test       pass all tests (first build: 5 to 10 minutes, then 23 minutes)"
	@echo "make servers    pass the tests on the other servers too (16 minutes)"
	@echo "make chaos      fail at random for 2 × 5 minutes (SECONDS_OF_CHAOS=300)"
	@echo "make fuzz       feed each decoder with bad bytes for a minute (SECONDS_OF_FUZZ=60)"
	@echo "make memory     hold the limit of memory with 5 million rows (10 minutes)"
	@echo "make large      read keys of a million members (LARGE_MEMBERS=1000000, 6 minutes)"
	@echo "make random     send random commands of all types, with crashes (RANDOM_STEPS=50000)"
	@echo "make reliability  run the fault workloads in full, write docs/reliability.md (3 minutes)"
	@echo "make lint       check the format"
	@echo "make benchmark  measure beside redis-server, a replica, psql and a hand-made worker (12 minutes)"

demo:
	@scripts/install-dependencies
	@echo "Building Sluice (5 to 10 minutes the first time) …"
	@scripts/with-hint "does 'swift --version' print 6.2 or later?" $(BUILD) --product sluice
	@scripts/with-hint "the lines above say what differs; --keep keeps the database and logs" \
		$$($(BUILD) --show-bin-path)/sluice demo --seconds $(SECONDS_OF_DEMO)

test:
	@scripts/install-dependencies tests
	@scripts/install-servers
	@echo "Building Sluice and its tests (5 to 10 minutes the first time) …"
	@scripts/with-hint "does 'swift --version' print 6.2 or later?" $(BUILD) --build-tests
	@echo "Testing (about 23 minutes) …"
	@scripts/with-hint "run one again with: swift test -c release --filter NAME" \
		scripts/run-tests $(SWIFT) test -c release --skip-build --no-parallel

servers:
	@scripts/install-dependencies tests
	@scripts/install-servers
	@$(BUILD) --build-tests
	@for server in redis-8.2 valkey-9.1; do \
		echo "Testing with $$server (8 minutes) …"; \
		scripts/with-hint "again, alone: SLUICE_SERVER=$$server swift test -c release --filter NAME" \
			env SLUICE_SERVER=$$server scripts/run-tests $(SWIFT) test -c release --skip-build --no-parallel \
			--filter '$(SERVER_TESTS)' --skip '$(SERVER_SKIP)' || exit 1; \
	done

chaos:
	@scripts/install-dependencies tests
	@$(BUILD) --build-tests
	@echo "Everything fails at random, for 2 × $(SECONDS_OF_CHAOS) seconds …"
	@scripts/with-hint "SLUICE_SEED=N repeats the schedule of seed N" \
		env SLUICE_CHAOS_SECONDS=$(SECONDS_OF_CHAOS) \
		$(SWIFT) test -c release --skip-build --no-parallel --filter ChaosTests

fuzz:
	@scripts/install-dependencies tests
	@$(BUILD) --build-tests
	@echo "Feeding each decoder with bad bytes for $(SECONDS_OF_FUZZ) seconds …"
	@scripts/with-hint "SLUICE_SEED=N repeats the run of seed N" \
		env SLUICE_FUZZ_SECONDS=$(SECONDS_OF_FUZZ) \
		$(SWIFT) test -c release --skip-build --no-parallel --filter FuzzTests

memory:
	@scripts/install-dependencies tests
	@$(BUILD) --build-tests
	@echo "Writing 2 × 5 million rows while the database is away (10 minutes) …"
	@scripts/with-hint "the lines above say what grew" env SLUICE_MEMORY_ROWS=5000000 \
		$(SWIFT) test -c release --skip-build --no-parallel --filter MemoryTests

# Some are replaced all at once, for which 512 MB are allowed, as by default.
large:
	@scripts/install-dependencies tests
	@scripts/install-servers
	@$(BUILD) --build-tests
	@echo "Reading keys of $(LARGE_MEMBERS) members while they change (4 minutes) …"
	@scripts/with-hint "the lines above say what differs" \
		env SLUICE_MEMBERS=$(LARGE_MEMBERS) SLUICE_MEMORY=512 \
		$(SWIFT) test -c release --skip-build --no-parallel --filter "LargeKeyTests/(pages|memory|rest)"
	@for server in redis-7.0 redis-8.2 valkey-9.1; do \
		echo "Measuring what another client of $$server feels (40 seconds) …"; \
		scripts/with-hint "is nothing else running on the machine?" \
			env SLUICE_SERVER=$$server $(SWIFT) test -c release --skip-build --no-parallel \
			--filter LargeKeyTests/latency || exit 1; \
	done

random:
	@scripts/install-dependencies tests
	@scripts/install-servers
	@$(BUILD) --build-tests
	@echo "Sending 3 × $(RANDOM_STEPS) random commands to each of two servers and databases, with crashes,"
	@echo "and changing the keys of four mirrors in bursts, a tenth as many …"
	@scripts/with-hint "SLUICE_SEED=N repeats the commands of seed N" \
		env SLUICE_STEPS=$(RANDOM_STEPS) \
		$(SWIFT) test -c release --skip-build --no-parallel --filter "VerifyTests/randomCommands|MirrorTests"

reliability:
	@scripts/install-dependencies tests
	@$(BUILD) --build-tests
	@echo "Running the fault workloads (3 minutes) …"
	@scripts/with-hint "the lines above say what was lost" env SLUICE_RELIABILITY=1 \
		$(SWIFT) test -c release --skip-build --no-parallel --filter ReliabilityTests

build:
	@scripts/install-dependencies
	@$(BUILD) --product sluice

lint:
	@$(SWIFT) format lint --strict --parallel --recursive Package.swift Sources Tests

format:
	@$(SWIFT) format --in-place --parallel --recursive Package.swift Sources Tests

benchmark:
	@scripts/install-dependencies benchmarks
	@$(BUILD) --product sluice
	@Benchmarks/run

clean:
	@rm -rf .build
