/* Load generator for relays of the mesh protocol. One thread, epoll, no dependencies.
 *
 *     cc -O2 -o loadgen loadgen.c
 *     ./loadgen --port 8080 --server-pid 1234 --scenario closed --peers 110 --senders 10
 *
 * It opens N WebSocket connections, announces a peer on each, waits until every peer has seen the
 * presence of every peer, runs one scenario and prints one line of JSON. Every delivery is checked:
 * the text must be the one that was sent, and the sequence numbers that a receiver sees of a sender
 * must be 1, 2, 3, ... without a gap. Anything else is a violation: "ok" is false, the exit code 1.
 *
 * The loop polls without blocking, on a core of its own: messages leave when they are due, are
 * stamped when they arrive, and the server under test does not pay for waking this process.
 * `generator_busy` is the part of the time in which there was something to do.
 *
 * Messages are for everyone, or, with --audience one, each names one other peer in `to`, or, with
 * --audience topics, has a `topic`, and each peer wants some topics. With --wishes the peers say in
 * their presence that they want nothing else (rule 22 of docs/protocol.md), and get nothing else.
 *
 * With --nats it speaks NATS over plain TCP instead, with the same messages as payloads: a subject
 * `mesh` for what goes to everyone, one subject per peer, and one per topic. With --resume every
 * peer asks to be counted, so that it could come back after a cut, and reports as clients do.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ull
#define READ_BYTES (256 * 1024)
#define EVENTS_MAX 512
#define CONNECTING_MAX 256 /* below the listen backlog of every server compared */
#define HEARTBEAT_NS (10 * NS)
#define FRAMES_UNREPORTED 64 /* after so many frames clients report, but not more often */
#define REPORT_NS (NS / 10)
#define RESUME "{\"type\":\"capabilities\",\"data\":{\"resume\":{\"seconds\":20}}}"
#define DRAIN_NS (15 * NS)
#define SERVERS_MAX 9
#define WINDOW_MAX 1024 /* with topics: of all senders together */
#define LINGER_NS (NS / 10)
#define STALLED_RECEIVE_BUFFER 4096
#define STALLED_SEGMENT 1460 /* as on Ethernet */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="           /* the pair from RFC 6455, section 1.3 */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* Options -------------------------------------------------------------------------------------- */

enum scenario { CLOSED, PINGPONG, OPEN, IDLE };
static const char *const SCENARIOS[] = {"closed", "pingpong", "open", "idle"};

enum audience { EVERYONE, ONE, TOPICS };
static const char *const AUDIENCES[] = {"everyone", "one", "topics"};

static struct {
    int peers, senders, window, size, stalled, topics, wanted;
    int ports[SERVERS_MAX], server_pids[SERVERS_MAX]; /* of a federation there are several; then 0 */
    bool nats, resume, wishes;
    enum scenario scenario;
    enum audience audience;
    double seconds, warmup, rate, timeout;
    const char *path;
} options = {
    .peers = 110,
    .senders = 10,
    .window = 32,
    .topics = 50,
    .wanted = 10,
    .size = 180,
    .seconds = 5,
    .warmup = 0.5,
    .rate = 80,
    .timeout = 60,
    .path = "/ws",
};

/* State ---------------------------------------------------------------------------------------- */

enum opcode { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };
enum phase { CONNECTING, SHAKING, ANNOUNCED, STALLED, CLOSED_BY_US };

struct connection {
    int fd, index;
    enum phase phase;
    bool wants_out;
    char *rest; /* the beginning of a frame whose end has not come yet */
    size_t rest_bytes, rest_room;
    char *out; /* what the socket did not take yet */
    size_t out_bytes, out_room;
    uint64_t *seen; /* bit per peer: its presence came */
    int seen_count;
    uint32_t *last; /* per sender (and topic): sequence number of its latest message here */
    uint64_t wanted; /* bit per topic */
    uint64_t counted; /* with --resume: messages since the relay's answer, that included */
};

struct sender {
    char *text; /* the message, with room for sequence number and time */
    uint32_t sent;
    uint32_t *before;  /* per topic: sequence number of its latest message with it */
    int topic;         /* of its latest message */
    uint32_t *missing; /* per message in flight (by sequence number): receivers without it */
    uint64_t next_at;  /* open loop: when the next one is due */
    bool is_waiting;   /* for flush_senders() */
    uint32_t reported; /* with --resume: so many were sent before the latest report */
    uint64_t reported_at;
};

static struct connection *connections;
static struct sender *senders;
static int total, sender_count, epoll_fd;
static int receivers;                           /* of one message, if it has no topic */
static int wanting[64];                         /* per topic: the peers that want it */
static int opened, shaking, announced, present; /* counts over the connections */
static int *waiting, waiting_count;             /* senders with something to flush */
static uint32_t window_mask;
static size_t prefix_bytes, tail_at; /* of a message: what is fixed before and after the stamps */
static size_t topic_at;              /* of a message: the two digits of its topic */
static uint64_t deliveries, finished, expected, others, idle_ns, heartbeats;
static bool sending;   /* closed loop and ping-pong: a finished message is followed by the next */
static bool measuring; /* latencies count */
static char violation[512];
static uint64_t started_at;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

/* Note what went wrong; the first one counts, and ends the run. */
__attribute__((format(printf, 1, 2))) static void violate(const char *format, ...)
{
    if (violation[0])
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(violation, sizeof violation, format, arguments);
    va_end(arguments);
}

static void *make(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        perror("calloc");
        exit(2);
    }
    return memory;
}

static void reserve(char **buffer, size_t *room, size_t wanted)
{
    if (wanted <= *room)
        return;
    *room = wanted * 2;
    *buffer = realloc(*buffer, *room);
    if (!*buffer) {
        perror("realloc");
        exit(2);
    }
}

/* Latencies: log-linear, 128 steps per power of two, so within 0.8 % --------------------------- */

#define STEP_BITS 7
static uint64_t histogram[(64 - STEP_BITS + 1) << STEP_BITS];

static inline void record(uint64_t value)
{
    if (value >> STEP_BITS) {
        int shift = 63 - STEP_BITS - __builtin_clzll(value);
        histogram[((uint64_t)shift << STEP_BITS) + (value >> shift)]++;
    } else {
        histogram[value]++;
    }
}

/* Microseconds below which `share` of the values are (the upper end of a step). */
static double percentile(double share)
{
    uint64_t count = 0, sum = 0;
    size_t steps = sizeof histogram / sizeof *histogram;
    for (size_t i = 0; i < steps; i++)
        count += histogram[i];
    if (!count)
        return 0;
    for (size_t i = 0; i < steps; i++) {
        sum += histogram[i];
        if ((double)sum >= share * (double)count) {
            int shift = i >> (STEP_BITS + 1) ? (int)(i >> STEP_BITS) - 1 : 0;
            return (double)((i - ((uint64_t)shift << STEP_BITS) + 1) << shift) / 1000;
        }
    }
    return 0;
}

/* The server's processor time and memory ------------------------------------------------------- */

/* User and system time of all its threads, living and ended, to the nanosecond. */
static double server_cpu_s(void)
{
    clockid_t clock;
    struct timespec t;
    double sum = 0;
    for (int *pid = options.server_pids; *pid; pid++)
        if (!clock_getcpuclockid(*pid, &clock) && !clock_gettime(clock, &t))
            sum += (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    return sum;
}

static double own_cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static long server_rss_bytes(void)
{
    char path[64];
    long sum = 0;
    for (int *pid = options.server_pids; *pid; pid++) {
        long pages = 0;
        snprintf(path, sizeof path, "/proc/%d/statm", *pid);
        FILE *file = fopen(path, "r");
        if (file) {
            if (fscanf(file, "%*d %ld", &pages) == 1)
                sum += pages;
            fclose(file);
        }
    }
    return sum * sysconf(_SC_PAGESIZE);
}

/* Sending -------------------------------------------------------------------------------------- */

static void watch(struct connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void flush(struct connection *c)
{
    while (c->out_bytes) {
        ssize_t n = send(c->fd, c->out, c->out_bytes, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && c->phase != STALLED)
                violate("peer %d: send: %s", c->index, strerror(errno));
            break;
        }
        c->out_bytes -= (size_t)n;
        memmove(c->out, c->out + n, c->out_bytes);
    }
    bool wanted = c->out_bytes > 0;
    if (wanted != c->wants_out && c->phase != STALLED) {
        c->wants_out = wanted;
        watch(c, EPOLLIN | (wanted ? EPOLLOUT : 0u));
    }
}

static void queue_bytes(struct connection *c, const char *bytes, size_t count)
{
    reserve(&c->out, &c->out_room, c->out_bytes + count);
    memcpy(c->out + c->out_bytes, bytes, count);
    c->out_bytes += count;
}

/* A masked frame; the masking key is zero, which is as good as any other and costs nothing. */
static void queue_frame(struct connection *c, int opcode, const char *payload, size_t count)
{
    char header[8] = {(char)(0x80 | opcode), (char)(0x80 | count)};
    size_t header_bytes = 6;
    if (count > 125) {
        header[1] = (char)(0x80 | 126);
        header[2] = (char)(count >> 8);
        header[3] = (char)count;
        header_bytes = 8;
    }
    queue_bytes(c, header, header_bytes);
    queue_bytes(c, payload, count);
}

/* Stamps are hexadecimal with the digits a to p: quick to read back, and plain text in JSON. */
static void write_stamp(char *at, uint64_t value, int digits)
{
    while (digits--) {
        at[digits] = (char)('a' + (value & 15));
        value >>= 4;
    }
}

/* Eight digits; more than 32 bits if they are none. */
static inline uint64_t read_stamp(const char *at)
{
    uint64_t x;
    memcpy(&x, at, 8);
    x = __builtin_bswap64(x) - 0x6161616161616161ull;
    if (x & 0xf0f0f0f0f0f0f0f0ull)
        return UINT64_MAX;
    x = (x | x >> 4) & 0x00ff00ff00ff00ffull;
    x = (x | x >> 8) & 0x0000ffff0000ffffull;
    return (x | x >> 16) & 0xffffffffull;
}

static void compose(struct sender *sender, int index)
{
    char head[128];
    int n;
    if (options.audience == TOPICS) {
        n = snprintf(head, sizeof head, "{\"type\":\"stream\",\"from\":\"p%06d\",\"topic\":\"t", index);
        topic_at = (size_t)n;
        n += snprintf(head + n, sizeof head - (size_t)n, "00\",\"data\":{\"chunk\":\"");
    } else if (options.audience == ONE)
        n = snprintf(head, sizeof head,
                     "{\"type\":\"stream\",\"from\":\"p%06d\",\"to\":\"p%06d\","
                     "\"data\":{\"chunk\":\"",
                     index, index ^ 1);
    else if (options.scenario == PINGPONG)
        n = snprintf(head, sizeof head,
                     "{\"type\":\"direct\",\"from\":\"p%06d\",\"to\":\"p%06d\","
                     "\"data\":{\"chunk\":\"",
                     index, index ^ 1);
    else
        n = snprintf(head, sizeof head,
                     "{\"type\":\"stream\",\"from\":\"p%06d\",\"data\":{\"chunk\":\"", index);
    prefix_bytes = (size_t)n;
    tail_at = prefix_bytes + (options.audience == TOPICS ? 32 : 24);
    if ((size_t)options.size < tail_at + 3) {
        fprintf(stderr, "--size must be at least %zu\n", tail_at + 3);
        exit(2);
    }
    sender->text = make((size_t)options.size, 1);
    memset(sender->text, 'x', (size_t)options.size);
    memcpy(sender->text, head, prefix_bytes);
    memcpy(sender->text + options.size - 3, "\"}}", 3);
}

/* With --resume: how many messages have arrived, as rule 19 of docs/protocol.md has it. */
static void queue_report(struct connection *c)
{
    char text[80];
    uint64_t count = c->counted ? c->counted - 1 : 0;
    int n = snprintf(text, sizeof text, "{\"type\":\"capabilities\",\"data\":{\"received\":%llu}}",
                     (unsigned long long)count);
    queue_frame(c, TEXT, text, (size_t)n);
}

/* A message of the protocol. */
static void queue_text(struct connection *c, const char *text, size_t count)
{
    if (!options.nats) {
        queue_frame(c, TEXT, text, count);
        return;
    }
    char head[48];
    int n;
    if (options.scenario == PINGPONG || (options.audience == ONE && options.wishes))
        n = snprintf(head, sizeof head, "PUB p%06d %zu\r\n", c->index ^ 1, count);
    else if (options.audience == TOPICS)
        n = snprintf(head, sizeof head, "PUB t%02d %zu\r\n", senders[c->index].topic, count);
    else
        n = snprintf(head, sizeof head, "PUB mesh %zu\r\n", count);
    queue_bytes(c, head, (size_t)n);
    queue_bytes(c, text, count);
    queue_bytes(c, "\r\n", 2);
}

/* The same numbers in every run (xorshift). */
static uint32_t next_random(void)
{
    static uint32_t state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

/* Leaves with the next flush_senders(). */
static void queue_message(int index, uint64_t at)
{
    struct sender *sender = &senders[index];
    uint32_t sequence = ++sender->sent;
    write_stamp(sender->text + prefix_bytes, sequence, 8);
    write_stamp(sender->text + prefix_bytes + 8, at, 16);
    int count = receivers;
    if (options.audience == TOPICS) {
        int topic = sender->topic = (int)(next_random() % (uint32_t)options.topics);
        sender->text[topic_at] = (char)('0' + topic / 10);
        sender->text[topic_at + 1] = (char)('0' + topic % 10);
        write_stamp(sender->text + prefix_bytes + 24, sender->before[topic], 8);
        sender->before[topic] = sequence;
        count = wanting[topic] - (int)(connections[index].wanted >> topic & 1);
    }
    sender->missing[sequence & window_mask] = (uint32_t)count;
    expected += (uint64_t)count;
    queue_text(&connections[index], sender->text, (size_t)options.size);
    if (options.resume && sequence - sender->reported >= FRAMES_UNREPORTED &&
        at - sender->reported_at >= REPORT_NS) {
        sender->reported = sequence;
        sender->reported_at = at;
        queue_report(&connections[index]);
    }
    if (!sender->is_waiting) {
        sender->is_waiting = true;
        waiting[waiting_count++] = index;
    }
}

/* What one sender has to say goes out in one write. */
static void flush_senders(void)
{
    while (waiting_count) {
        int index = waiting[--waiting_count];
        senders[index].is_waiting = false;
        flush(&connections[index]);
    }
}

/* What a peer says that it wants. */
static int write_wish(const struct connection *c, char *text, size_t room)
{
    if (!options.wishes)
        return 0;
    if (options.audience == ONE)
        return snprintf(text, room, ",\"subscribe\":{\"others\":false}");
    int n = snprintf(text, room, ",\"subscribe\":{\"topics\":[");
    const char *comma = "";
    for (int topic = 0; topic < options.topics; topic++)
        if (c->wanted >> topic & 1) {
            n += snprintf(text + n, room - (size_t)n, "%s\"t%02d\"", comma, topic);
            comma = ",";
        }
    return n + snprintf(text + n, room - (size_t)n, "]}");
}

static void announce(struct connection *c)
{
    char text[1024], wish[768] = "";
    int n;
    if (options.nats) {
        n = snprintf(text, sizeof text,
                     "CONNECT {\"verbose\":false,\"echo\":false}\r\n"
                     "SUB mesh 1\r\nSUB p%06d 2\r\n",
                     c->index);
        for (int topic = 0; topic < options.topics; topic++)
            if (c->wanted >> topic & 1)
                n += snprintf(text + n, sizeof text - (size_t)n, "SUB t%02d %d\r\n", topic, 3 + topic);
        n += snprintf(text + n, sizeof text - (size_t)n, "PING\r\n");
        queue_bytes(c, text, (size_t)n);
    } else {
        if (options.resume)
            queue_frame(c, TEXT, RESUME, sizeof RESUME - 1);
        write_wish(c, wish, sizeof wish);
        n = snprintf(text, sizeof text,
                     "{\"type\":\"presence\",\"from\":\"p%06d\",\"data\":{\"agents\":[]%s}}",
                     c->index, wish);
        queue_frame(c, TEXT, text, (size_t)n);
    }
    flush(c);
    shaking--;
    announced++;
    c->phase = ANNOUNCED;
}

/* Receiving ------------------------------------------------------------------------------------ */

static inline int read_index(const char *digits)
{
    int value = 0;
    for (int i = 0; i < 6; i++) {
        unsigned digit = (unsigned char)digits[i] - '0';
        if (digit > 9)
            return -1;
        value = value * 10 + (int)digit;
    }
    return value;
}

#define STREAM "{\"type\":\"stream\",\"from\":\"p"
#define DIRECT "{\"type\":\"direct\",\"from\":\"p"
#define PRESENCE "{\"type\":\"presence\""
#define ERROR "{\"type\":\"error\""
#define HEARTBEAT "{\"type\":\"heartbeat\"}"
#define ANSWER "{\"type\":\"capabilities"
#define FROM_AT (sizeof STREAM - 1)

/* Who says something in a closed loop when a message of this sender has arrived everywhere. */
static int next_sender(int index)
{
    return options.audience == TOPICS ? (int)(next_random() % (uint32_t)sender_count) : index;
}

/* One `stream` or `direct` message at a receiver. */
static void delivered(struct connection *c, const char *text, size_t count, uint64_t now)
{
    int index = read_index(text + FROM_AT);
    bool is_for_one = options.scenario == PINGPONG || (options.audience == ONE && options.wishes);
    if (index < 0 || index >= sender_count || index == c->index ||
        (is_for_one && index != (c->index ^ 1))) {
        violate("peer %d received a message that is not for it: %.60s", c->index, text);
        return;
    }
    struct sender *sender = &senders[index];
    size_t same = options.audience == TOPICS ? topic_at : prefix_bytes;
    size_t on = options.audience == TOPICS ? topic_at + 2 : prefix_bytes;
    if (count != (size_t)options.size || memcmp(text, sender->text, same) ||
        memcmp(text + on, sender->text + on, prefix_bytes - on) ||
        memcmp(text + tail_at, sender->text + tail_at, count - tail_at)) {
        violate("peer %d: the text of peer %d has changed", c->index, index);
        return;
    }
    uint64_t sequence = read_stamp(text + prefix_bytes);
    uint64_t high = read_stamp(text + prefix_bytes + 8), low = read_stamp(text + prefix_bytes + 16);
    if (high == UINT64_MAX || low == UINT64_MAX || sequence > sender->sent) {
        violate("peer %d: the text of peer %d has changed", c->index, index);
        return;
    }
    uint32_t *last = &c->last[index];
    uint64_t before = sequence - 1;
    if (options.audience == TOPICS) {
        int topic = (text[topic_at] - '0') * 10 + text[topic_at + 1] - '0';
        if (topic < 0 || topic >= options.topics || !(c->wanted >> topic & 1)) {
            violate("peer %d received a topic that it does not want: %.80s", c->index, text);
            return;
        }
        last = &c->last[index * options.topics + topic];
        before = read_stamp(text + prefix_bytes + 24);
    }
    if (before != *last || sequence <= before) {
        violate("peer %d: message %llu of peer %d came after %u", c->index,
                (unsigned long long)sequence, index, *last);
        return;
    }
    *last = (uint32_t)sequence;
    deliveries++;
    uint64_t at = high << 32 | low;
    if (measuring)
        record(now > at ? now - at : 0);
    if (options.scenario == OPEN || --sender->missing[sequence & window_mask])
        return;
    finished++;
    if (sending)
        queue_message(options.scenario == PINGPONG ? c->index : next_sender(index), now);
}

static void presence(struct connection *c, const char *text, size_t count)
{
    const char *from = memmem(text, count, "\"from\":\"p", 9);
    int index = from && from + 15 <= text + count ? read_index(from + 9) : -1;
    if (index < 0 || index >= total) {
        violate("peer %d received the presence of nobody: %.*s", c->index, (int)count, text);
        return;
    }
    uint64_t bit = 1ull << (index & 63);
    if (!(c->seen[index >> 6] & bit)) {
        c->seen[index >> 6] |= bit;
        if (++c->seen_count == total)
            present++;
    }
}

/* One WebSocket message or control frame. */
static void received(struct connection *c, int opcode, const char *text, size_t count, uint64_t now)
{
    if (opcode == TEXT) {
        bool is_long = count > FROM_AT + 6;
        if (options.resume &&
            (c->counted || (is_long && !memcmp(text, ANSWER, sizeof ANSWER - 1))))
            c->counted++;
        if (is_long && (!memcmp(text, STREAM, FROM_AT) || !memcmp(text, DIRECT, FROM_AT))) {
            delivered(c, text, count, now);
            return;
        }
        others++;
        if (is_long && !memcmp(text, PRESENCE, sizeof PRESENCE - 1))
            presence(c, text, count);
        else if (is_long && !memcmp(text, ERROR, sizeof ERROR - 1))
            violate("peer %d received an error: %.*s", c->index, (int)count, text);
    } else if (opcode == PING) {
        queue_frame(c, PONG, text, count);
        flush(c);
    } else if (opcode == CLOSE) {
        int code = count > 1 ? (unsigned char)text[0] << 8 | (unsigned char)text[1] : 0;
        violate("peer %d: closed by the server with code %d", c->index, code);
    } else if (opcode != PONG) {
        violate("peer %d: frame with opcode %d", c->index, opcode);
    }
}

/* Every whole frame in `data`. Returns how many bytes that was. */
static size_t parse(struct connection *c, const char *data, size_t count, uint64_t now)
{
    size_t at = 0;
    while (count - at >= 2 && !violation[0]) {
        const unsigned char *frame = (const unsigned char *)data + at;
        uint64_t length = frame[1], start = 2;
        if ((frame[0] & 0xf0) != 0x80 || length > 127) {
            violate("peer %d: a frame that is fragmented, compressed or masked", c->index);
            break;
        }
        if (length > 125) {
            start = length == 126 ? 4 : 10;
            if (count - at < start)
                break;
            length = 0;
            for (size_t i = 2; i < start; i++)
                length = length << 8 | frame[i];
        }
        if (count - at - start < length)
            break;
        received(c, frame[0] & 15, data + at + start, length, now);
        at += start + length;
    }
    return at;
}

/* The answer to the opening handshake. Returns how many bytes it has, 0 if it is not all here. */
static size_t parse_handshake(struct connection *c, char *data, size_t count)
{
    char *end = memmem(data, count, "\r\n\r\n", 4);
    if (!end)
        return 0;
    *end = 0;
    if (strncmp(data, "HTTP/1.1 101", 12) || !strstr(data, ACCEPT)) {
        violate("peer %d: the handshake was answered with: %.60s", c->index, data);
        return 0;
    }
    announce(c);
    return (size_t)(end - data) + 4;
}

/* The same for NATS: INFO, MSG <subject> <subscription> <bytes>, PING, PONG. */
static size_t parse_nats(struct connection *c, const char *data, size_t count, uint64_t now)
{
    size_t at = 0;
    while (at < count && !violation[0]) {
        const char *line = data + at, *end = memchr(line, '\n', count - at);
        if (!end)
            break;
        size_t line_bytes = (size_t)(end - line) + 1;
        if (line[0] == 'M') {
            size_t bytes = 0, unit = 1;
            for (const char *digit = end - 2; digit > line && *digit != ' '; digit--, unit *= 10)
                bytes += (size_t)(*digit - '0') * unit;
            if (count - at < line_bytes + bytes + 2)
                break;
            received(c, TEXT, line + line_bytes, bytes, now);
            line_bytes += bytes + 2;
        } else if (!strncmp(line, "INFO ", 5) && c->phase == SHAKING) {
            announce(c);
        } else if (!strncmp(line, "PONG", 4)) {
            /* What this connection subscribed to before its PING is in effect. */
            c->seen_count = total;
            present++;
        } else if (!strncmp(line, "PING", 4)) {
            queue_bytes(c, "PONG\r\n", 6);
            flush(c);
        } else if (strncmp(line, "INFO ", 5)) {
            violate("peer %d: the server says %.*s", c->index, (int)line_bytes - 2, line);
        }
        at += line_bytes;
    }
    return at;
}

static void readable(struct connection *c)
{
    /* Small enough to stay in the cache, large enough for many messages. */
    static char buffer[READ_BYTES];
    size_t count = c->rest_bytes;
    if (count > READ_BYTES / 2) {
        violate("peer %d: a frame of more than %d bytes", c->index, READ_BYTES / 2);
        return;
    }
    memcpy(buffer, c->rest, count);
    ssize_t n = recv(c->fd, buffer + count, READ_BYTES - count, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            violate("peer %d: %s", c->index, n ? strerror(errno) : "connection closed");
        return;
    }
    count += (size_t)n;
    size_t used = 0;
    if (options.nats)
        used = parse_nats(c, buffer, count, now_ns());
    else if (c->phase == SHAKING)
        used = parse_handshake(c, buffer, count);
    if (c->phase == ANNOUNCED && !options.nats)
        used += parse(c, buffer + used, count - used, now_ns());
    c->rest_bytes = count - used;
    reserve(&c->rest, &c->rest_room, c->rest_bytes);
    memcpy(c->rest, buffer + used, c->rest_bytes);
    flush_senders();
}

/* The loop ------------------------------------------------------------------------------------- */

static void open_connection(int index)
{
    struct connection *c = &connections[index];
    int servers = 0;
    while (options.ports[servers])
        servers++;
    int port = options.ports[index % servers];
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int one = 1, buffer_bytes = STALLED_RECEIVE_BUFFER, segment_bytes = STALLED_SEGMENT;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        violate("socket: %s", strerror(errno));
        return;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (index >= options.peers) {
        /* On loopback the kernel would hold megabytes before the server notices anything. */
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
        setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &segment_bytes, sizeof segment_bytes);
    }
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        violate("connect: %s", strerror(errno));
        return;
    }
    c->wants_out = true;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
    c->phase = SHAKING;
    char request[256];
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY "\r\n"
                     "Sec-WebSocket-Version: 13\r\n\r\n",
                     options.path, port);
    if (!options.nats)
        queue_bytes(c, request, (size_t)n);
    shaking++;
    opened++;
}

/* So that nobody is taken for dead: each peer every 10 s, spread evenly over them. */
static void send_heartbeats(uint64_t now)
{
    uint64_t due = (now - started_at) / (HEARTBEAT_NS / (uint64_t)options.peers);
    for (; heartbeats < due; heartbeats++) {
        struct connection *c = &connections[heartbeats % (uint64_t)options.peers];
        if (c->phase == ANNOUNCED && !options.nats) {
            queue_frame(c, TEXT, HEARTBEAT, sizeof HEARTBEAT - 1);
            if (options.resume)
                queue_report(c);
            flush(c);
        }
    }
}

/* Take what is there. `timeout_ms` only where nothing is measured. Returns the time. */
static uint64_t turn(int timeout_ms)
{
    static struct epoll_event events[EVENTS_MAX];
    static uint64_t last;
    if (!last)
        last = now_ns();
    int count = epoll_wait(epoll_fd, events, EVENTS_MAX, timeout_ms);
    if (count <= 0) {
        uint64_t now = now_ns();
        idle_ns += now - last;
        last = now;
    }
    for (int i = 0; i < count && !violation[0]; i++) {
        struct connection *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT)
            flush(c);
        if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            readable(c);
    }
    if (count > 0)
        last = now_ns();
    send_heartbeats(last);
    return last;
}

/* Open the connections from `first` on and wait until every peer has seen everybody. */
static void gather(int first, int end)
{
    uint64_t deadline = now_ns() + (uint64_t)(options.timeout * NS);
    int next = first;
    while (announced < end && !violation[0]) {
        while (next < end && shaking < CONNECTING_MAX && !violation[0])
            open_connection(next++);
        if (turn(0) > deadline)
            violate("timeout: %d of %d connected, %d handshakes begun", announced, total, opened);
    }
}

static void wait_for_presence(void)
{
    uint64_t deadline = now_ns() + (uint64_t)(options.timeout * NS);
    while (present < options.peers && !violation[0])
        if (turn(0) > deadline)
            violate("timeout: %d of %d have seen everybody", present, options.peers);
}

/* From now on nothing is read from those that are to be stalled. */
static void stall(void)
{
    for (int i = options.peers; i < total; i++) {
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, connections[i].fd, NULL);
        connections[i].phase = STALLED;
    }
}

/* Scenarios ------------------------------------------------------------------------------------ */

static double result_seconds, result_cpu, result_own_cpu, result_busy;
static uint64_t result_deliveries, result_messages;

/* Open loop: what is due goes out, stamped with the time at which it was due. */
static void send_due(uint64_t now, uint64_t until, uint64_t interval)
{
    for (int i = 0; i < options.senders; i++) {
        struct sender *sender = &senders[i];
        for (; sender->next_at <= now && sender->next_at < until; sender->next_at += interval)
            queue_message(i, sender->next_at);
    }
    flush_senders();
}

static void run_load(void)
{
    uint64_t begin = now_ns(), warm = begin + (uint64_t)(options.warmup * NS);
    uint64_t end = warm + (uint64_t)(options.seconds * NS);
    uint64_t interval = (uint64_t)(NS / options.rate), now = begin;
    sending = true;
    for (int i = 0; i < sender_count; i++) {
        if (options.scenario == CLOSED && options.audience != TOPICS)
            for (int k = 0; k < options.window; k++)
                queue_message(i, begin);
        else if (options.scenario == PINGPONG && i % 2 == 0)
            queue_message(i, begin);
        senders[i].next_at = begin + interval * (uint64_t)i / (uint64_t)sender_count;
    }
    if (options.scenario == CLOSED && options.audience == TOPICS)
        for (int k = 0; k < options.window; k++)
            queue_message(next_sender(0), begin);
    flush_senders();
    while (now < warm && !violation[0]) {
        if (options.scenario == OPEN)
            send_due(now, end, interval);
        now = turn(0);
    }
    double cpu = server_cpu_s(), own_cpu = own_cpu_s();
    uint64_t from = now_ns(), idle = idle_ns, deliveries_before = deliveries;
    uint64_t messages_before = options.scenario == OPEN ? expected : finished;
    measuring = true;
    while (now < end && !violation[0]) {
        if (options.scenario == OPEN)
            send_due(now, end, interval);
        now = turn(0);
    }
    result_cpu = server_cpu_s() - cpu;
    uint64_t wall = now_ns() - from;
    result_own_cpu = own_cpu_s() - own_cpu;
    result_seconds = (double)wall / 1e9;
    result_busy = 1 - (double)(idle_ns - idle) / (double)wall;
    result_deliveries = deliveries - deliveries_before;
    result_messages = options.scenario == OPEN
                          ? (expected - messages_before) / (uint64_t)receivers
                          : finished - messages_before;
    measuring = options.scenario == OPEN; /* a late message is late even if the time is up */
    sending = false;
    uint64_t deadline = now + DRAIN_NS;
    while (deliveries < expected && !violation[0])
        if (turn(0) > deadline)
            violate("timeout: %llu of %llu deliveries did not arrive",
                    (unsigned long long)(expected - deliveries), (unsigned long long)expected);
    /* What came once must not come again. */
    for (deadline = now_ns() + LINGER_NS; !violation[0] && turn(0) < deadline;)
        ;
}

static double since_start_s(void)
{
    return (double)(now_ns() - started_at) / 1e9;
}

/* Stay in the loop, without polling. */
static void pass_time(double seconds)
{
    uint64_t end = now_ns() + (uint64_t)(seconds * NS);
    while (!violation[0] && turn(20) < end)
        ;
}

static void close_all(void)
{
    for (int i = 0; i < total; i++) {
        close(connections[i].fd);
        connections[i].phase = CLOSED_BY_US;
    }
}

/* The program ---------------------------------------------------------------------------------- */

static void print_text(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < ' ' || (unsigned char)*text > '~')
            putchar('?');
        else
            putchar(*text);
    putchar('"');
}

/* Numbers with commas between them. Behind the last one is 0. */
static void read_numbers(char *text, int numbers[SERVERS_MAX])
{
    for (int n = 0; n < SERVERS_MAX - 1 && *text; n++) {
        numbers[n] = (int)strtol(text, &text, 10);
        text += *text == ',';
    }
}

static void read_options(int count, char **arguments)
{
    static const struct option names[] = {
        {"port", 1, 0, 'p'},      {"path", 1, 0, 'P'},   {"server-pid", 1, 0, 'i'},
        {"scenario", 1, 0, 's'},  {"peers", 1, 0, 'n'},  {"senders", 1, 0, 'S'},
        {"window", 1, 0, 'w'},    {"size", 1, 0, 'b'},   {"seconds", 1, 0, 'd'},
        {"warmup", 1, 0, 'u'},    {"rate", 1, 0, 'r'},   {"stalled", 1, 0, 'k'},
        {"timeout", 1, 0, 't'},   {"nats", 0, 0, 'N'},   {"resume", 0, 0, 'R'},
        {"audience", 1, 0, 'a'},  {"topics", 1, 0, 'T'}, {"wanted", 1, 0, 'W'},
        {"wishes", 0, 0, 'x'},    {0, 0, 0, 0},
    };
    int letter, known = -1, audience = EVERYONE;
    while ((letter = getopt_long(count, arguments, "", names, NULL)) != -1) {
        switch (letter) {
        case 'p': read_numbers(optarg, options.ports); break;
        case 'P': options.path = optarg; break;
        case 'i': read_numbers(optarg, options.server_pids); break;
        case 'n': options.peers = atoi(optarg); break;
        case 'S': options.senders = atoi(optarg); break;
        case 'w': options.window = atoi(optarg); break;
        case 'b': options.size = atoi(optarg); break;
        case 'd': options.seconds = atof(optarg); break;
        case 'u': options.warmup = atof(optarg); break;
        case 'r': options.rate = atof(optarg); break;
        case 'k': options.stalled = atoi(optarg); break;
        case 't': options.timeout = atof(optarg); break;
        case 'N': options.nats = true; break;
        case 'R': options.resume = true; break;
        case 'x': options.wishes = true; break;
        case 'T': options.topics = atoi(optarg); break;
        case 'W': options.wanted = atoi(optarg); break;
        case 'a':
            for (audience = TOPICS; audience >= 0 && strcmp(optarg, AUDIENCES[audience]); audience--)
                ;
            if (audience >= 0)
                options.audience = (enum audience)audience;
            else
                options.peers = 0;
            break;
        case 's':
            for (known = IDLE; known >= 0 && strcmp(optarg, SCENARIOS[known]); known--)
                ;
            if (known >= 0)
                options.scenario = (enum scenario)known;
            else
                options.peers = 0;
            break;
        default: exit(2);
        }
    }
    if (options.scenario == PINGPONG)
        options.senders = options.peers &= ~1;
    if (options.scenario == IDLE)
        options.senders = 0;
    if (options.ports[0] <= 0 || options.peers < 2 || options.senders < 0 || options.window < 1 ||
        options.senders > options.peers || options.size > 65535 || options.rate <= 0 ||
        options.stalled < 0 || options.topics < 1 || options.topics > 64 ||
        options.wanted > options.topics ||
        (options.audience != EVERYONE && (options.stalled || options.scenario == PINGPONG)) ||
        (options.audience == TOPICS && (!options.wishes || options.scenario != CLOSED ||
                                        options.window > WINDOW_MAX)) ||
        (options.audience == ONE && options.peers % 2)) {
        fprintf(stderr,
                "usage: loadgen --port N[,N...] [--server-pid N[,N...]] --scenario closed|pingpong|open|idle\n"
                "  [--peers N] [--senders N] [--window N] [--rate N] [--size BYTES] [--stalled N]\n"
                "  [--seconds S] [--warmup S] [--timeout S] [--path PATH] [--nats | --resume]\n"
                "  [--audience everyone|one|topics] [--wishes] [--topics N] [--wanted N]\n"
                "  (topics: only --scenario closed with --wishes; --window is for all together)\n");
        exit(2);
    }
}

static void prepare(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    total = options.peers + options.stalled;
    sender_count = options.senders;
    bool is_for_one = options.scenario == PINGPONG || (options.audience == ONE && options.wishes);
    receivers = is_for_one ? 1 : options.peers - 1;
    uint32_t in_flight = (uint32_t)(options.audience == TOPICS ? WINDOW_MAX : options.window);
    for (window_mask = 1; window_mask < in_flight; window_mask *= 2)
        ;
    window_mask--;
    connections = make((size_t)total, sizeof *connections);
    for (int i = 0; i < total; i++) {
        connections[i].index = i;
        connections[i].seen = make((size_t)total / 64 + 1, 8);
        size_t rows = options.audience == TOPICS ? (size_t)options.topics : 1;
        connections[i].last = make((size_t)sender_count * rows, sizeof *connections[i].last);
        for (int k = 0; options.audience == TOPICS && k < options.wanted;) {
            int topic = (int)(next_random() % (uint32_t)options.topics);
            if (connections[i].wanted >> topic & 1)
                continue;
            connections[i].wanted |= 1ull << topic;
            wanting[topic]++;
            k++;
        }
    }
    senders = make((size_t)sender_count, sizeof *senders);
    waiting = make((size_t)sender_count, sizeof *waiting);
    for (int i = 0; i < sender_count; i++) {
        compose(&senders[i], i);
        senders[i].missing = make(window_mask + 1, sizeof *senders[i].missing);
        senders[i].before = make((size_t)options.topics, sizeof *senders[i].before);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
}

int main(int count, char **arguments)
{
    read_options(count, arguments);
    prepare();
    long rss_before = server_rss_bytes();
    started_at = now_ns();
    gather(0, options.peers);
    double connected_s = since_start_s();
    gather(options.peers, total);
    wait_for_presence();
    double present_s = since_start_s();
    stall();
    long rss_present = server_rss_bytes(), rss_after = 0;
    double idle_cpu = 0;
    double beating_cpu = 0;
    if (options.scenario == IDLE) {
        double cpu_before = server_cpu_s();
        pass_time(options.seconds);
        beating_cpu = (server_cpu_s() - cpu_before) / options.seconds;
        rss_present = server_rss_bytes();
        if (!violation[0]) {
            close_all();
            pass_time(3);
            rss_after = server_rss_bytes();
            double cpu = server_cpu_s();
            pass_time(1);
            idle_cpu = server_cpu_s() - cpu;
        }
    } else if (!violation[0]) {
        run_load();
        rss_after = server_rss_bytes();
    }

    bool ok = !violation[0];
    printf("{\"scenario\":\"%s\",\"ok\":%s,\"peers\":%d,\"senders\":%d,\"window\":%d,\"size\":%d,"
           "\"rate\":%g,\"stalled\":%d,\"seconds\":%.3f,\"messages\":%llu,\"deliveries\":%llu,"
           "\"others\":%llu,",
           SCENARIOS[options.scenario], ok ? "true" : "false", options.peers, options.senders,
           options.window, options.size, options.rate, options.stalled, result_seconds,
           (unsigned long long)result_messages, (unsigned long long)result_deliveries,
           (unsigned long long)others);
    printf("\"server_cpu_s\":%.6f,\"server_busy\":%.4f,\"deliveries_per_cpu_s\":%.0f,"
           "\"deliveries_per_s\":%.0f,",
           result_cpu, result_seconds > 0 ? result_cpu / result_seconds : 0,
           result_cpu > 0 ? (double)result_deliveries / result_cpu : 0,
           result_seconds > 0 ? (double)result_deliveries / result_seconds : 0);
    printf("\"latency_us\":{\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f},"
           "\"generator_cpu_s\":%.4f,\"generator_busy\":%.4f,",
           percentile(0.5), percentile(0.99), percentile(0.999), result_own_cpu, result_busy);
    printf("\"connected_s\":%.4f,\"present_s\":%.4f,\"rss_before\":%ld,\"rss_present\":%ld,"
           "\"rss_per_connection\":%ld,\"rss_after\":%ld,\"idle_cpu_s\":%.6f,"
           "\"beating_cpu\":%.6f,\"violations\":",
           connected_s, present_s, rss_before, rss_present,
           (rss_present - rss_before) / (total ? total : 1), rss_after, idle_cpu, beating_cpu);
    print_text(violation);
    printf("}\n");
    return ok ? 0 : 1;
}
