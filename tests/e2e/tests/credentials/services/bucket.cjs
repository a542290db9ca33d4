// The AWS SDK of JavaScript with placeholders. Each case prints a line.
const { S3Client, CreateBucketCommand, PutObjectCommand, GetObjectCommand, ListObjectsV2Command } = require("@aws-sdk/client-s3");
const { getSignedUrl } = require("@aws-sdk/s3-request-presigner");
const { Readable } = require("stream");

const client = new S3Client({ region: "eu-west-1", endpoint: "https://store.test", forcePathStyle: true, maxAttempts: 1 });
const Bucket = "jsbox", Key = "d/a b+c&d=e~f!g*h'i(j)k@l:m,n$p%q#r?s[t]é.txt";
const send = (command) => client.send(command);
const text = (answer) => answer.Body.transformToString();
const cases = {
    make: async () => (await send(new CreateBucketCommand({ Bucket }))).$metadata.httpStatusCode,
    put: async () => (await send(new PutObjectCommand({ Bucket, Key, Body: "from js", Metadata: { note: "a  b" } }))).$metadata.httpStatusCode,
    get: async () => text(await send(new GetObjectCommand({ Bucket, Key }))),
    // Of a stream nobody knows the hash before: chunks, and a checksum behind them.
    stream: async () => {
        const Body = Readable.from([Buffer.alloc(100_000, "x")]);
        await send(new PutObjectCommand({ Bucket, Key: "stream", Body, ContentLength: 100_000 }));
        return (await text(await send(new GetObjectCommand({ Bucket, Key: "stream" })))).length;
    },
    list: async () => (await send(new ListObjectsV2Command({ Bucket, Prefix: "d/a b+" }))).KeyCount,
    links: async () => {
        const put = await getSignedUrl(client, new PutObjectCommand({ Bucket, Key: "link" }), { expiresIn: 60 });
        await fetch(put, { method: "PUT", body: "by a link" });
        return (await fetch(await getSignedUrl(client, new GetObjectCommand({ Bucket, Key: "link" }), { expiresIn: 60 }))).text();
    },
};
(async () => {
    for (const [name, run] of Object.entries(cases)) {
        console.log(`${name}: ${await run().catch((e) => `failed ${e.name} ${String(e.message).slice(0, 200)}`)}`);
    }
})();
