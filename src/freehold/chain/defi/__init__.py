from freehold.chain.defi.deploy import deploy_defi

__all__ = ["deploy_defi"]
