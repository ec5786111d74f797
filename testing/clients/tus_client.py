"""Uploads a file with tuspy, through whatever cuts the line.

    python3 tus_client.py ENDPOINT FILE CHUNK CHECKSUMS

A chunk that fails is sent again, from where the server says. Prints {"url", "retries"} when it is through.
"""

import json
import os
import sys
import time

import requests
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

endpoint, path, chunk, checksums = sys.argv[1:]
metadata = {"filename": os.path.basename(path), "filetype": "image/png"}
retries = 0


def again(work):
    global retries
    while True:
        try:
            return work()
        except (TusCommunicationError, requests.exceptions.RequestException) as error:
            retries += 1
            if retries > 2000:
                raise error
            time.sleep(0.02)


uploader = again(
    lambda: TusClient(endpoint).uploader(
        path, chunk_size=int(chunk), metadata=metadata, upload_checksum=checksums == "yes"
    )
)
size = os.path.getsize(path)


def step():
    if not uploader.url:
        uploader.set_url(uploader.create_url())
    uploader.offset = uploader.get_offset()
    while uploader.offset < size:
        uploader.upload_chunk()


again(step)
print(json.dumps({"url": uploader.url, "retries": retries}))
