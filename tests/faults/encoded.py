"""br and zstd bodies of the scenarios u38-br and u38-zstd, for /v1/chat/completions without a usage chunk.

Made once with the packages brotli 1.2.1 and zstandard 0.25.0 from `content.whole`.
"""

from __future__ import annotations

ENCODED: dict[tuple[str, bool], str] = {
    ("br", True): (
        "G/QDAIyEcuOysh2UMB4ED8/lSO99vrVJ12iMLZi1QbOjSMtrHQWWvk8P2MMWlbU4KTz+27fLWQ4uFzweg9qmTjo3xRlvo0Sw"
        "7H1hS7sEJaSkMYpQMOBxGhE5FK35oMvYq4Hm2GqKCMMRzA1XyieMhg4EW9gDqkjnOLaIXvC3FvahWEqOlyHIL+yjF2z9hOXn"
        "PemVUb5vff29anve/3I++Z1k0AUbcnftBAbvktaoAA=="
    ),
    ("br", False): (
        "GwkBIJwJtg2FbWTD9K0bC/HAc03Se58vakEe3WCwwQaciGYvg24l2zB8seg8PQ3UgyTL2qotLav5ES9y0evVqlA4zEz58Pth"
        "NhT2jjKgV/3seGjDkL7MatXUJNT2qVNRj/p73HDZeIDbpiEhcoc1Fa0GLOkDr6GVOW5Cenr7uPS9YfCz/xkcvrHXqxU61Znb"
        "/Wa1PXYEcjlYCw1BAaggkeTLLH+9AA=="
    ),
    ("zstd", True): (
        "KLUv/WABA20GANILKiyQKelHPDMpImJPafl3IQi4KSIT06TsfpTGStkbtXBPYqqEsBBunBRLuUsfHSlFCg4QCCCfcL8zEBES"
        "GRUKjInKRTqnwoKypBRFIueexS+/pU5C89q2havo7JwarPYyO4Rf7TSvHHgHzW2HIPinrHGT/R4aAwDP8U6TJVeOAIEHPrWX"
        "OuzqDfs0jFlurW4iYcb0atjxzZRBga/+aDhKebuOz3ZowdUrAwoAHzOqYx5gVEbdkctQhARUIcGMMjm4jB7ZYM9SNhgDiAI="
    ),
    ("zstd", False): (
        "KLUv/WAMAG0GACINLCuQKelHPDMpImJPafl3IQi4qSbtQKTkWrREVu7e+xtFhQj0K9QabM1S/wcxUeRgnOrtp4CnB541F7Yh"
        "/Tj7nsiTQRSd4fAAcaFMJCwiJhUKc2+CQqKsc0mg2bqtqrkxp9t3CJ8Jijmdpz/bfLwuq3yQhps2hKcGniGZtkMFeM7VtmHN"
        "DcsAQOR4l2ydp4bAg8GzbJVvPV23dbrH2cVo1azje6XCwT6dWV5KWNXxrB0KCQA0C+eU4Pg7AAkiEovnRMSFmNiWClYHsAc="
    ),
}
