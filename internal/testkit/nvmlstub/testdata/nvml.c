// A libnvidia-ml.so.1 for tests. It reads its cards from the file "cards" beside
// itself at each call, so that a test can change them while it runs; a missing
// file is a host without a driver. The file's lines:
//
//   init CODE            what nvmlInit returns
//   driver VERSION
//   load N               which load of the driver this is: with another one,
//                        everything but nvmlShutdown fails until nvmlInit
//   hang 1               calls on a card do not return while this stands
//   card UUID            begins a card; the lines that follow are its own:
//   name TEXT | brand N | arch N | bus ID | lost CODE
//   KEY NUMBER           a value; KEY! CODE is the error of that query
//   session PID CODEC WIDTH HEIGHT FPS LATENCY
//
// A query without a value is NOT_SUPPORTED. Compiled with -DOLD it is the library
// of an old driver, which lacks what came later.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int ret_t;
enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, UNKNOWN = 999 };
enum { MAX = 64 };

// As in the real one, nvmlInit looks for the cards: one that comes later is not
// seen, and one that was lost stays lost, until the library is shut down and
// initialised again. Handles of before are invalid then.
struct card { char uuid[128]; int generation, lost; };
static struct card cards[MAX * 64];
static int inits, generation, count_;
static long long loaded;

static int load(char *text, int size) {
  Dl_info self;
  char path[1024];
  if (!dladdr((void *)load, &self)) return 0;
  snprintf(path, sizeof path, "%s", self.dli_fname);
  char *slash = strrchr(path, '/');
  if (!slash) return 0;
  strcpy(slash + 1, "cards");
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  size_t n = fread(text, 1, size - 1, f);
  fclose(f);
  text[n] = 0;
  return 1;
}

// find returns the value of key within card slot (-1: before the first card).
static int find(int slot, const char *key, int nth, char *value, int size) {
  char text[64 * 1024];
  if (!load(text, sizeof text)) return 0;
  int at = -1;
  char *save = 0;
  for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(0, "\n", &save)) {
    char *v = strchr(line, ' ');
    if (!v) continue;
    *v++ = 0;
    if (!strcmp(line, "card")) at++;
    if (at == slot && !strcmp(line, key) && nth-- == 0) {
      snprintf(value, size, "%s", v);
      return 1;
    }
  }
  return 0;
}

static int number(int slot, const char *key, long long *n) {
  char v[64];
  if (!find(slot, key, 0, v, sizeof v)) return 0;
  *n = strtoll(v, 0, 0);
  return 1;
}

static int driver_gone(ret_t *r) {
  char text[64 * 1024];
  long long n = 0;
  if (!load(text, sizeof text)) return *r = DRIVER_NOT_LOADED, 1;
  if (number(-1, "init", &n) && n) return *r = (ret_t)n, 1;
  if (inits && (n = 0, number(-1, "load", &n), n != loaded)) return *r = UNKNOWN, 1;
  return 0;
}

static void hang(void) {
  long long n;
  while (number(-1, "hang", &n) && n) usleep(10 * 1000);
}

// check is what every query on a card does first; it finds the card's lines.
static ret_t check(void *h, int *slot) {
  struct card *c = h;
  char uuid[128];
  long long n = 0;
  ret_t r;
  hang();
  if (!inits) return UNINITIALIZED;
  if (c < cards || c >= cards + MAX * 64 || c->generation != generation) return INVALID_ARGUMENT;
  if (driver_gone(&r)) return r;
  for (*slot = 0; find(*slot, "card", 0, uuid, sizeof uuid); ++*slot)
    if (!strcmp(uuid, c->uuid)) break;
  if (!c->lost && !find(*slot, "card", 0, uuid, sizeof uuid)) c->lost = GPU_IS_LOST;
  if (!c->lost && number(*slot, "lost", &n)) c->lost = (int)n;
  return (ret_t)c->lost;
}

static ret_t get(void *h, const char *key, long long *n) {
  char failing[64];
  long long code;
  int slot;
  ret_t r = check(h, &slot);
  if (r) return r;
  snprintf(failing, sizeof failing, "%s!", key);
  if (number(slot, failing, &code)) return (ret_t)code;
  return number(slot, key, n) ? OK : NOT_SUPPORTED;
}

static ret_t get_u(void *h, const char *key, unsigned *out) {
  long long n = 0;
  ret_t r = get(h, key, &n);
  if (!r) *out = (unsigned)n;
  return r;
}

static ret_t get_s(void *h, const char *key, char *out, unsigned size) {
  int slot;
  ret_t r = check(h, &slot);
  if (r) return r;
  return find(slot, key, 0, out, (int)size) ? OK : NOT_SUPPORTED;
}

static struct card *card(int i) { return &cards[(generation % 64) * MAX + i]; }

ret_t nvmlInit_v2(void) {
  ret_t r;
  if (driver_gone(&r)) return r;
  if (inits++) return OK;
  generation++;
  loaded = 0, number(-1, "load", &loaded);
  for (count_ = 0; count_ < MAX && find(count_, "card", 0, card(count_)->uuid, 128); count_++)
    card(count_)->generation = generation, card(count_)->lost = 0;
  return OK;
}

ret_t nvmlShutdown(void) {
  if (!inits) return UNINITIALIZED;
  inits--;
  return OK;
}

ret_t nvmlDeviceGetCount_v2(unsigned *count) {
  ret_t r;
  if (!inits) return UNINITIALIZED;
  if (driver_gone(&r)) return r;
  *count = (unsigned)count_;
  return OK;
}

ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, void **h) {
  if (!inits) return UNINITIALIZED;
  if ((int)index >= count_) return INVALID_ARGUMENT;
  *h = card((int)index);
  return OK;
}

ret_t nvmlSystemGetDriverVersion(char *out, unsigned size) {
  return find(-1, "driver", 0, out, (int)size) ? OK : NOT_SUPPORTED;
}

ret_t nvmlDeviceGetUUID(void *h, char *out, unsigned size) { return get_s(h, "card", out, size); }
ret_t nvmlDeviceGetName(void *h, char *out, unsigned size) { return get_s(h, "name", out, size); }
ret_t nvmlDeviceGetBrand(void *h, unsigned *v) { return get_u(h, "brand", v); }
ret_t nvmlDeviceGetPowerUsage(void *h, unsigned *mw) { return get_u(h, "power", mw); }
ret_t nvmlDeviceGetTemperature(void *h, int sensor, unsigned *c) {
  return sensor ? INVALID_ARGUMENT : get_u(h, "temperature", c);
}

ret_t nvmlDeviceGetMemoryInfo(void *h, unsigned long long *m) { // total, free, used
  long long total = 0, used = 0;
  ret_t r = get(h, "memory", &total);
  if (r || (r = get(h, "memory_used", &used))) return r;
  m[0] = total, m[1] = total - used, m[2] = used;
  return OK;
}

ret_t nvmlDeviceGetPciInfo_v3(void *h, char *pci) { // nvmlPciInfo_t: busId is at 36
  return get_s(h, "bus", pci + 36, 32);
}

static ret_t utilization(void *h, const char *key, unsigned *pct, unsigned *us) {
  *us = 167000;
  return get_u(h, key, pct);
}
ret_t nvmlDeviceGetEncoderUtilization(void *h, unsigned *pct, unsigned *us) { return utilization(h, "encoder", pct, us); }
ret_t nvmlDeviceGetDecoderUtilization(void *h, unsigned *pct, unsigned *us) { return utilization(h, "decoder", pct, us); }

#ifndef OLD
ret_t nvmlDeviceGetArchitecture(void *h, unsigned *v) { return get_u(h, "arch", v); }

ret_t nvmlDeviceGetMigMode(void *h, unsigned *current, unsigned *pending) {
  return *pending = 0, get_u(h, "mig", current);
}

ret_t nvmlDeviceGetEncoderCapacity(void *h, int codec, unsigned *pct) {
  static const char *keys[] = {"capacity_h264", "capacity_hevc", "capacity_av1"};
  return codec < 0 || codec > 2 ? INVALID_ARGUMENT : get_u(h, keys[codec], pct);
}

ret_t nvmlDeviceGetEncoderStats(void *h, unsigned *sessions, unsigned *fps, unsigned *us) {
  ret_t r = get_u(h, "sessions", sessions);
  if (!r) r = get_u(h, "fps", fps);
  if (!r) r = get_u(h, "latency", us);
  return r;
}

ret_t nvmlDeviceGetEncoderSessions(void *h, unsigned *count, unsigned (*out)[8]) {
  char v[128];
  unsigned n = 0, stats;
  int slot;
  ret_t r = get_u(h, "sessions", &stats);
  if (r || (r = check(h, &slot))) return r;
  while (find(slot, "session", (int)n, v, sizeof v)) n++;
  if (n > *count) return *count = n, INSUFFICIENT_SIZE;
  *count = n;
  for (unsigned i = 0; i < n; i++) {
    find(slot, "session", (int)i, v, sizeof v);
    out[i][0] = i, out[i][2] = 0; // id, vGPU
    sscanf(v, "%u %u %u %u %u %u", &out[i][1], &out[i][3], &out[i][4], &out[i][5], &out[i][6], &out[i][7]);
  }
  return OK;
}

ret_t nvmlDeviceGetCurrentClocksEventReasons(void *h, unsigned long long *mask) {
  long long n = 0;
  ret_t r = get(h, "clocks", &n);
  return r ? r : (*mask = (unsigned long long)n, OK);
}

const char *nvmlErrorString(ret_t r) {
  switch (r) {
  case OK: return "The operation was successful";
  case DRIVER_NOT_LOADED: return "Driver Not Loaded";
  case GPU_IS_LOST: return "GPU is lost";
  case 18: return "Driver/library version mismatch";
  default: return "Unknown Error";
  }
}
#else
ret_t nvmlDeviceGetCurrentClocksThrottleReasons(void *h, unsigned long long *mask) {
  long long n = 0;
  ret_t r = get(h, "clocks", &n);
  return r ? r : (*mask = (unsigned long long)n, OK);
}
#endif
